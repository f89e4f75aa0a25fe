"""The element type of every value of a graph, from ONNX's schemas alone: no shapes, nothing is run.

A schema names its types by variables, so most outputs have the type of an input that shares theirs. The rest is said by an attribute or by
a subgraph; `ATTRIBUTES` and `_explicit` list those. Types are written `float32`, `seq(float32)`, or "" where the model does not say.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from openinfer.ir.graph import Graph, Node

NAMES = {"float": "float32", "double": "float64"}  # of ONNX, where NumPy's differ

# Attributes that hold a type as ONNX's number → what holds where the model leaves them out; "" where that is an input's type.
ATTRIBUTES = {
    "Cast": ("to", ""),
    "BitCast": ("to", ""),
    "EyeLike": ("dtype", ""),
    "RandomNormalLike": ("dtype", ""),
    "RandomUniformLike": ("dtype", ""),
    "Bernoulli": ("dtype", ""),
    "RandomNormal": ("dtype", "float32"),
    "RandomUniform": ("dtype", "float32"),
    "Multinomial": ("dtype", "int32"),
    "BlackmanWindow": ("output_datatype", "float32"),
    "HammingWindow": ("output_datatype", "float32"),
    "HannWindow": ("output_datatype", "float32"),
    "MelWeightMatrix": ("output_datatype", "float32"),
    "QuantizeLinear": ("output_dtype", "uint8"),
}


@dataclasses.dataclass(frozen=True)
class _Side:
    """The inputs or the outputs of a schema: the variable or type of each, and whether the last repeats with types of its own."""

    types: tuple[str, ...]
    mixed: bool

    def at(self, index: int) -> str:
        return self.types[min(index, len(self.types) - 1)] if self.types else ""


@dataclasses.dataclass(frozen=True)
class _Schema:
    inputs: _Side
    outputs: _Side
    allowed: Mapping[str, frozenset[str]]


def value_types(graph: Graph) -> dict[str, str]:
    """Value name → its type, for inputs, constants and everything that a node writes."""
    # Of a sequence the signature does not say what is in it.
    types = {signature.name: "" if signature.dtype.endswith("_type") else signature.dtype for signature in graph.inputs}
    types |= {name: _array_type(value) for name, value in graph.constants.items()}
    for node in graph.nodes:
        written = output_types(node, [types.get(name, "") if name else "" for name in node.inputs])
        types |= {name: kind for name, kind in zip(node.outputs, written, strict=True) if name}
    return types


def output_types(node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    """The types that a node writes when it reads `inputs`."""
    explicit = _explicit(node, inputs)
    schema = _schema(node.op, node.version, node.domain)
    bound: dict[str, str] = {}
    if schema is not None:
        for index, kind in enumerate(inputs):
            last = index >= len(schema.inputs.types) - 1
            if kind and not (schema.inputs.mixed and last):
                bound.setdefault(schema.inputs.at(index), kind)
    found = []
    for index in range(len(node.outputs)):
        kind = explicit[min(index, len(explicit) - 1)] if explicit and (index == 0 or len(explicit) > 1) else ""
        if not kind and schema is not None:
            variable = schema.outputs.at(index)
            allowed = schema.allowed.get(variable, frozenset((variable,)))
            kind = bound.get(variable) or (next(iter(allowed)) if len(allowed) == 1 else "")
        found.append(kind)
    return tuple(found)


def accepts(node: Node, index: int, kind: str) -> bool:
    """Whether the operator takes `kind` as its input number `index`."""
    schema = _schema(node.op, node.version, node.domain)
    if schema is None:
        return False
    variable = schema.inputs.at(index)
    return kind in schema.allowed.get(variable, (variable,))


@functools.cache
def _schema(op: str, version: int, domain: str) -> _Schema | None:
    try:
        schema = onnx.defs.get_schema(op, version or 1, domain)
    except onnx.defs.SchemaError:
        return None
    allowed = {one.type_param_str: frozenset(_name(text) for text in one.allowed_type_strs) for one in schema.type_constraints}
    return _Schema(_side(schema.inputs), _side(schema.outputs), allowed)


def _side(formals: Sequence[Any]) -> _Side:
    mixed = bool(formals) and formals[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic and not formals[-1].is_homogeneous
    return _Side(tuple(_name(formal.type_str) for formal in formals), mixed)


def _name(text: str) -> str:
    """`seq(tensor(float))` as `seq(float32)`; a variable's name stays."""
    return re.sub(r"tensor\((\w+)\)", lambda found: NAMES.get(found[1], found[1]), text)


def _explicit(node: Node, inputs: Sequence[str]) -> tuple[str, ...]:
    """Types that no variable says, by output; "" where one may, empty where all do. A single one is the first output's."""
    first = inputs[0] if inputs else ""
    if node.domain == "ai.onnx.ml":
        return _of_labels(node)
    if node.domain:
        return ()
    if node.op in ATTRIBUTES:
        name, missing = ATTRIBUTES[node.op]
        code = node.attribute(name, 0)
        if code:
            return (_of_code(code),)
        zero_point = inputs[2] if node.op == "QuantizeLinear" and len(inputs) > 2 else ""
        return (zero_point or missing or first,)
    match node.op:
        case "ConstantOfShape":
            value = node.attribute("value")
            return ("float32" if value is None else _array_type(value),)
        case "LayerNormalization":
            return ("", _of_code(node.attribute("stash_type", 1)))
        case "DequantizeLinear" if node.version >= 23:
            code = node.attribute("output_dtype", 0)
            return (_of_code(code) if code else inputs[1],)
        case "SequenceEmpty":
            return (f"seq({_of_code(node.attribute('dtype', 1))})",)
        case "SequenceConstruct" | "SplitToSequence":
            return (f"seq({first})" if first else "",)
        case "SequenceAt" | "ConcatFromSequence":
            return (first.removeprefix("seq(").removesuffix(")"),)
        case "Optional":
            return (f"optional({first})" if first else _of_proto(node.attribute("type")),)
        case "OptionalGetElement":
            return (first.removeprefix("optional(").removesuffix(")") if first.startswith("optional(") else first,)
        case "If":
            return _of_graph(node.attribute("then_branch"), 0)
        case "Loop":
            return _of_graph(node.attribute("body"), 1)
        case "Scan":
            return _of_graph(node.attribute("body"), 0)
        case "SequenceMap":
            return tuple(f"seq({kind})" if kind else "" for kind in _of_graph(node.attribute("body"), 0))
    return ()


def _of_labels(node: Node) -> tuple[str, ...]:
    """Labels of ONNX-ML are text or integers, as the list that the model holds."""
    if node.op == "LabelEncoder":
        values = {"values_strings": "string", "values_int64s": "int64", "values_floats": "float32", "classes_strings": ""}
        table = node.attribute("values_tensor")
        known = [kind for name, kind in values.items() if node.attribute(name)]
        return (_array_type(table) if table is not None else known[0] if known else "",)
    if node.op in ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"):
        named = node.attribute("classlabels_strings") or node.attribute("classlabels_strings_as_tensor")
        return ("string" if named else "int64", "")
    return ()


def _of_graph(graph: Any, skipped: int) -> tuple[str, ...]:
    return tuple(_of_proto(value.type) for value in graph.output[skipped:]) if graph is not None else ()


def _of_proto(kind: Any) -> str:
    which = kind.WhichOneof("value") if kind is not None else None
    if which == "tensor_type":
        return _of_code(kind.tensor_type.elem_type) if kind.tensor_type.elem_type else ""
    if which in ("sequence_type", "optional_type"):
        inner = _of_proto(getattr(kind, which).elem_type)
        return f"{'seq' if which == 'sequence_type' else 'optional'}({inner})" if inner else ""
    return ""


def _of_code(code: int) -> str:
    return "string" if code == onnx.TensorProto.STRING else str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code)).name)


def _array_type(value: Any) -> str:
    return "string" if value.dtype.kind in "OUST" else str(value.dtype.name)
