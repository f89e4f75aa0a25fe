"""A graph as text: every part has its line, long values are cut."""

from __future__ import annotations

import numpy as np

from openinfer.ir.graph import Graph, Node, Signature
from openinfer.ir.text import text


def test_every_part_has_its_line():
    nodes = (
        Node("Gemm", ("x", "w", ""), ("h",), {"transB": 1, "axes": list(range(20)), "value": np.zeros((2, 2))}),
        Node("Tree", ("h",), ("y", ""), {"mode": b"SUM"}, domain="ai.onnx.ml", captures=("z",)),
    )
    graph = Graph(
        "g",
        (Signature("x", "float32", ("batch", "", 40)), Signature("u", "int64", None)),
        (Signature("y", "float32", (3,)),),
        nodes,
        {"w": np.zeros((64, 40), np.float32), "few": np.arange(3)},
    )
    assert text(graph).splitlines() == [
        "graph    g",
        "input    x: float32 [batch, ?, 40]",
        "input    u: int64 of unknown rank",
        "constant w: float32 [64, 40]",
        "constant few: int64 [3] = [0, 1, 2]",
        "h = Gemm(x, w, _) axes=[0, 1, 2, 3, 4, 5, 6, 7, … 20 in all] transB=1 value=float64 [2, 2] = [[0.0, 0.0], [0.0, 0.0]]",
        "y, _ = ai.onnx.ml.Tree(h) mode=b'SUM' reads z",
        "output   y: float32 [3]",
    ]
