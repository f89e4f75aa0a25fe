"""Matrix products of run-time operands against NumPy in float64; the same bits as a constant operand gives, and in every batch."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import generator
from lowering import make_node, run_node
from models import model
from onnx import TensorProto, helper

import openinfer

F = TensorProto.FLOAT


def close(found, expected, dtype="float32"):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max(initial=0) <= (1e-5 if dtype == "float32" else 1e-13) * np.abs(expected).max(initial=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batches_broadcast(dtype):
    rng = generator()
    for left, right in (
        ((), ()), ((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 1), (1, 4)), ((2, 3), (3,)), ((1,), (5,)), ((2, 1, 3), (2, 4, 1)),
    ):  # fmt: skip
        m, k, n = (int(d) for d in rng.integers(1, [20, 70, 90]))
        print(left, right, m, k, n)
        a, b = rng.standard_normal((*left, m, k)).astype(dtype), rng.standard_normal((*right, k, n)).astype(dtype)
        found = run_node(make_node("MatMul", ["a", "b"]), {"a": a, "b": b}, threads=2)[0]
        close(found, a.astype(np.float64) @ b.astype(np.float64), dtype)
        assert (run_node(make_node("MatMul", ["a", "b"]), {"a": a, "b": b}, ["a", "b"])[0] == found).all()


@pytest.mark.parametrize("k", [1, 15, 16, 17, 100, 1030])
def test_the_bits_of_a_constant_operand(k):
    rng = generator()
    m, n = int(rng.integers(1, 30)), int(rng.integers(1, 130))
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    node = make_node("MatMul", ["a", "b"])
    found = run_node(node, {"a": a, "b": b})[0]
    close(found, a.astype(np.float64) @ b.astype(np.float64))
    assert (run_node(node, {"a": a, "b": b}, ["b"])[0] == found).all()
    assert (run_node(node, {"a": a[-1:], "b": b})[0][0] == found[-1]).all()


def test_vectors_and_matrices():
    rng = generator()
    v, w = rng.standard_normal(23).astype(np.float32), rng.standard_normal((3, 23, 5)).astype(np.float32)
    for a, b in ((v, w), (v, w[0]), (w[0].T.copy(), v), (v, v), (np.swapaxes(w, 1, 2).copy(), v)):
        close(run_node(make_node("MatMul", ["a", "b"]), {"a": a, "b": b})[0], np.asarray(a.astype(np.float64) @ b))


@pytest.mark.parametrize("constants", [(), ("b",), ("a",), ("b", "c")])
def test_gemm_of_every_form(constants):
    rng = generator()
    for turned in ((0, 0), (1, 0), (0, 1), (1, 1)):
        m, k, n = (int(d) for d in rng.integers(1, [20, 70, 90]))
        a, b = rng.standard_normal((k, m) if turned[0] else (m, k)), rng.standard_normal((n, k) if turned[1] else (k, n))
        for shape in (None, (), (1,), (n,), (1, n), (m, 1), (m, n)):
            inputs = {"a": a.astype(np.float32), "b": b.astype(np.float32)}
            if shape is not None:
                inputs["c"] = rng.standard_normal(shape).astype(np.float32)
            alpha, beta = (float(number) for number in rng.choice([1.0, 0.5, -1.25], 2))
            print(turned, m, k, n, shape, alpha, beta)
            node = make_node("Gemm", list(inputs), transA=turned[0], transB=turned[1], alpha=alpha, beta=beta)
            found = run_node(node, inputs, [name for name in constants if name in inputs], threads=2)[0]
            wide = {name: value.astype(np.float64) for name, value in inputs.items()}
            left, right = (wide[name].T if turn else wide[name] for name, turn in zip("ab", turned, strict=True))
            close(found, alpha * (left @ right) + beta * wide.get("c", 0.0))


def test_attention_keeps_the_bits_of_every_sequence():
    rng = generator()
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "t"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["o"]),
        helper.make_node("Relu", ["o"], ["y"]),
    ]
    kind = (F, ["n", 4, "s", 16])
    engine = openinfer.load(model(nodes, {name: kind for name in "qkv"}, {"y": kind}))
    for length in (5, 17, 33):
        q, k, v = (rng.standard_normal((3, 4, length, 16)).astype(np.float32) for _ in range(3))
        found = engine.run({"q": q, "k": k, "v": v})["y"]
        scores = q.astype(np.float64) @ np.swapaxes(k.astype(np.float64), 2, 3)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        close(found, np.maximum(p / p.sum(-1, keepdims=True) @ v.astype(np.float64), 0))
        alone = engine.run({"q": q[1:2], "k": k[1:2], "v": v[1:2]})["y"]
        assert (alone[0] == found[1]).all()
    assert not engine.statistics().fallback
