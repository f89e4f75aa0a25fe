"""Small ONNX models that tests build on the spot."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Mapping[str, tuple[int, Sequence[Any] | None]],
    constants: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A checked model; `inputs` and `outputs` map a name to (element type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(proto)
    return proto


def mlp(sizes: Sequence[int] = (40, 64, 32, 3), seed: int = 0, dtype: Any = np.float32) -> onnx.ModelProto:
    """Gemm + Relu layers and a softmax, with a symbolic batch: input "x", output "probabilities"."""
    generator = np.random.default_rng(seed)
    nodes, constants, value = [], {}, "x"
    for index, (m, n) in enumerate(itertools.pairwise(sizes)):
        constants[f"w{index}"] = (generator.standard_normal((m, n)) * np.sqrt(2 / m)).astype(dtype)
        constants[f"b{index}"] = generator.standard_normal(n).astype(dtype)
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [f"h{index}"]))
        value = f"h{index}"
        if index < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [value], [f"r{index}"]))
            value = f"r{index}"
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=-1))
    kind = TensorProto.FLOAT if dtype == np.float32 else TensorProto.DOUBLE
    return model(nodes, {"x": (kind, ["batch", sizes[0]])}, {"probabilities": (kind, ["batch", sizes[-1]])}, constants)
