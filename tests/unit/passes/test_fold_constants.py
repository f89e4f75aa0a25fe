"""Tensors that a model gives by shape and value."""

from __future__ import annotations

import numpy as np
import pytest

from openinfer.ir.graph import Graph, Node, Signature
from openinfer.passes import fold_constants as folding


def graph_of(*shapes, value=None):
    nodes = [Node("ConstantOfShape", (f"s{i}",), (f"y{i}",), {} if value is None else {"value": value}) for i in range(len(shapes))]
    outputs = tuple(Signature(f"y{i}", "float32", None) for i in range(len(shapes)))
    return Graph("g", (), outputs, tuple(nodes), {f"s{i}": np.array(shape, np.int64) for i, shape in enumerate(shapes)})


def refuse(node, inputs):
    raise AssertionError(f"{node.op} was evaluated")


def test_a_filled_tensor_is_a_constant():
    folded = folding.fold_constants(graph_of([2, 0, 3], [], [4], value=np.array([7], np.int32)), refuse)
    assert folded.nodes == ()
    for name, shape in (("y0", (2, 0, 3)), ("y1", ()), ("y2", (4,))):
        assert folded.constants[name].dtype == np.int32
        assert folded.constants[name].shape == shape
        assert (folded.constants[name] == 7).all()
    assert folding.fold_constants(graph_of([2]), refuse).constants["y0"].dtype == np.float32


def test_what_is_too_large_or_malformed_stays(monkeypatch):
    monkeypatch.setattr(folding, "GENERATED_BYTES", 40)
    folded = folding.fold_constants(graph_of([6], [6], [3], [-1], [2**40, 2**40]), refuse)
    # 24 bytes of 40, then 24 of 16: no; then 12 of 16.
    assert [node.outputs[0] for node in folded.nodes] == ["y1", "y3", "y4"]


@pytest.mark.parametrize(
    ("op", "shapes"),
    [
        ("Add", ((9000, 1), (1, 9000))),
        ("Where", ((9000, 1, 1), (1, 90, 1), (100,))),
        ("MatMul", ((9000, 1), (1, 9000))),
        ("Gemm", ((9000, 1), (1, 9000))),
        ("Gather", ((1, 9000), (9000,))),
    ],
)
def test_what_broadcasting_would_swell_stays(op, shapes):
    constants = {f"x{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)}
    node = Node(op, tuple(constants), ("y",), {})
    graph = Graph("g", (), (Signature("y", "float32", None),), (node,), constants)
    assert folding.fold_constants(graph, refuse).nodes == (node,)


def test_what_broadcasting_leaves_small_is_folded():
    constants = {"a": np.zeros((90, 1), np.float32), "b": np.zeros((1, 90), np.float32)}
    graph = Graph("g", (), (Signature("y", "float32", None),), (Node("Add", ("a", "b"), ("y",), {}),), constants)
    folded = folding.fold_constants(graph, lambda node, inputs: [inputs[0] + inputs[1]])
    assert folded.constants["y"].shape == (90, 90)
