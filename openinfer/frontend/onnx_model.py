"""ONNX → IR. Reads a path, bytes or a `ModelProto`; refuses what is corrupt, from the future, or reaches outside the file."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from openinfer.errors import HostileModelError, ModelError
from openinfer.frontend.gate import graphs, inspect
from openinfer.frontend.versions import check_versions
from openinfer.ir.graph import Array, Graph, Node, Signature
from openinfer.ir.verify import verify
from openinfer.ops import tree_ensemble

log = logging.getLogger("openinfer")

FIRST_OPSET = 1
MOST_ELEMENTS = 1 << 48
DOMAINS = {"": onnx.defs.onnx_opset_version(), "ai.onnx.ml": 5, "ai.onnx.preview.training": 1, "ai.onnx.preview": 1}


def read(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Graph:
    """The model as a verified graph.

    Raises `ModelError` for a file that is missing, corrupt or newer than this version knows, `HostileModelError` for one that names
    data outside itself.
    """
    proto, source, data = _proto(model)
    if not proto.HasField("graph"):
        raise ModelError(f"{source}: no graph inside; give an ONNX model file")
    inspect(proto, source)
    versions = _versions(proto, source)
    # The checker parses the bytes again. What was parsed here is let go meanwhile: a refusal never needs three copies of the file.
    if data is not None:
        del proto
    try:
        onnx.checker.check_model(model if data is None else data)
    except (onnx.checker.ValidationError, ValueError) as error:
        check_versions(proto if data is None else onnx.ModelProto.FromString(data), source)
        raise ModelError(f"{source}: not a valid ONNX model: {_one_line(error)}") from None
    if data is not None:
        proto = onnx.ModelProto.FromString(data)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    try:
        graph = verify(_graph(proto.graph, versions), "reading")
        _inspect_trees(proto, versions, source)
        _report_numbers(graph, source)
        return graph
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError) as error:
        raise ModelError(f"{source}: cannot be read: {_one_line(error)}") from None


def _proto(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> tuple[onnx.ModelProto, str, bytes | None]:
    """The model, what to call it in errors, and the bytes that it was read from."""
    if isinstance(model, onnx.ModelProto):
        return model, "model", None
    if isinstance(model, bytes):
        source, data = "model", model
    elif isinstance(model, (str, os.PathLike)):
        source = os.fspath(model)
        try:
            data = Path(source).read_bytes()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise ModelError(f"cannot read the model {source!r}: {reason or error}; give the path of an ONNX file") from None
    else:
        raise ModelError(f"found {type(model).__name__} as the model; allowed: a path, bytes, an onnx.ModelProto")
    try:
        return onnx.ModelProto.FromString(data), source, data
    except (DecodeError, RuntimeError) as error:
        raise ModelError(
            f"{source}: found {len(data)} bytes that are not an ONNX model: {_one_line(error)}; export the model again"
        ) from None


def _versions(proto: onnx.ModelProto, source: str) -> dict[str, int]:
    versions: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        newest = DOMAINS.get(domain)
        if newest is not None and not FIRST_OPSET <= entry.version <= newest:
            name = domain or "ai.onnx"
            raise ModelError(
                f"{source}: found opset {entry.version} of {name}; allowed: {FIRST_OPSET} to {newest}; export for one of these"
            )
        versions[domain] = entry.version
    return versions


def _inspect_trees(proto: Any, versions: dict[str, int], source: str) -> None:
    """Read the tree ensembles of every graph: one with cycles must not reach the fallback either, whose walk would not end."""
    for graph in graphs(proto, source):
        shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
        for node in graph.node:
            if node.domain == "ai.onnx.ml" and node.op_type.startswith("TreeEnsemble"):
                checked = _node(node, versions)
                tree_ensemble.check_targets(checked)
                dims = shapes.get(checked.inputs[0]) if checked.inputs else None
                if dims is not None and len(dims) == 2 and dims[1].HasField("dim_value"):
                    tree_ensemble.check_features(checked, dims[1].dim_value)


def _report_numbers(graph: Graph, source: str) -> None:
    """Log the weights that hold NaN or infinity: some models mean them, most are damaged."""
    for name, array in graph.constants.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            log.warning("%s: the weight %r holds NaN or infinity", source, name)


def _graph(graph: Any, versions: dict[str, int]) -> Graph:
    constants: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        raise ModelError(f"sparse initializer {sparse.values.name!r}: only dense ones are read; store it dense")
    nodes: list[Node] = []
    for proto in graph.node:
        node = _node(proto, versions)
        constant = _constant(node) if node.op == "Constant" and not node.domain else None
        if constant is None:
            nodes.append(node)
        else:
            constants[node.outputs[0]] = constant
    inputs = tuple(_signature(value) for value in graph.input if value.name not in constants)
    outputs = tuple(_signature(value) for value in graph.output)
    return Graph(graph.name, inputs, outputs, tuple(nodes), constants)


def _node(proto: Any, versions: dict[str, int]) -> Node:
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    attributes: dict[str, Any] = {}
    captures: list[str] = []
    for attribute in proto.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if attribute.type == onnx.AttributeProto.GRAPH:
            captures += _free_names(value)
        attributes[attribute.name] = _plain(value)
    outputs = list(proto.output)
    while outputs and not outputs[-1]:
        outputs.pop()
    return Node(
        proto.op_type,
        tuple(proto.input),
        tuple(outputs),
        attributes,
        domain,
        versions.get(domain, 0),
        proto.name,
        tuple(dict.fromkeys(captures)),
    )


def _free_names(graph: Any) -> list[str]:
    """Names that a subgraph reads from outside itself."""
    bound = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    free: list[str] = []
    for node in graph.node:
        free += [name for name in node.input if name and name not in bound]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                free += [name for name in _free_names(attribute.g) if name not in bound]
        bound |= set(node.output)
    return free + [value.name for value in graph.output if value.name not in bound]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (str, int, float)) or not hasattr(value, "__iter__"):
        return value
    return tuple(_plain(item) for item in value)


def _constant(node: Node) -> Array | None:
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    for name, value in node.attributes.items():
        if name == "value" and isinstance(value, np.ndarray):
            return value
        if name in kinds:
            return np.asarray(value, kinds[name])
        if name in ("value_string", "value_strings"):
            return np.asarray(value, object)
    return None


def _signature(value: Any) -> Signature:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return Signature(value.name, kind or "unknown", None)
    tensor = value.type.tensor_type
    element = tensor.elem_type
    if element == onnx.TensorProto.UNDEFINED or element not in onnx.TensorProto.DataType.values():
        raise ModelError(
            f"{value.name!r}: found element type {element}; allowed: those of ONNX, 1 to {max(onnx.TensorProto.DataType.values())}"
        )
    dtype = "string" if element == onnx.TensorProto.STRING else str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(element)).name)
    if not tensor.HasField("shape"):
        return Signature(value.name, dtype, None)
    shape: list[int | str] = []
    for axis, dimension in enumerate(tensor.shape.dim):
        if dimension.HasField("dim_value"):
            if dimension.dim_value < 0:
                raise HostileModelError(f"{value.name!r}: found dimension {dimension.dim_value}; allowed: 0 and more")
            shape.append(int(dimension.dim_value))
        else:
            shape.append(dimension.dim_param or f"{value.name}.{axis}")
    if math.prod(d for d in shape if isinstance(d, int) and d) > MOST_ELEMENTS:
        raise HostileModelError(f"{value.name!r}: found dimensions {shape}; no machine holds {MOST_ELEMENTS} elements")
    return Signature(value.name, dtype, tuple(shape))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
