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


# The columns of a tree of one split: 1 where x[0] ≤ 0.5, else 2.
STUMP = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [0, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "target_treeids": [0, 0],
    "target_nodeids": [1, 2],
    "target_ids": [0, 0],
    "target_weights": [1.0, 2.0],
}


def tree_regressor(columns: Mapping[str, Sequence[Any]], features: int | str, **attributes: Any) -> onnx.ModelProto:
    """A TreeEnsembleRegressor of one target: "x" [n, features] to "y" [n, 1]."""
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **columns, **attributes)
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=9)
