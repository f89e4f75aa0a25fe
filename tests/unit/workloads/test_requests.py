"""Requests of a trace as arguments of the model, joined or one by one, and the oracle's answers to them."""

from __future__ import annotations

import numpy as np
import pytest
from models import model
from onnx import TensorProto, helper
from openinfer.tuner.oracle import expected_outputs
from openinfer.workloads.requests import RunCall, batched, bindable, call_on

import openinfer
from openinfer.errors import WorkloadError
from openinfer.ir.graph import Signature


@pytest.mark.parametrize(
    ("shape", "trace", "size", "bound"),
    [
        (("n", 8), (10, 8), 3, (3, 8)),
        ((1, 8), (10, 8), 1, (1, 8)),
        ((4, 8), (10, 4, 8), 1, (4, 8)),
        ((1, 2, 8), (10, 2, 8), 1, (1, 2, 8)),
        ((2, "n"), (10, 2, 5), 1, (2, 5)),
        ((), (10,), 1, ()),
    ],
)
def test_shapes(shape, trace, size, bound):
    given = np.random.default_rng().standard_normal(trace).astype(np.float32)
    signature = Signature("x", "float32", shape)
    array = bindable([signature], {"x": given}, size)["x"]
    assert array.shape == bound and not np.shares_memory(array, given)
    assert (array.reshape(-1) == given[:size].reshape(-1)).all()
    assert batched([signature]) == (shape[:1] == ("n",))


def test_what_does_not_fit_is_named():
    signature = Signature("x", "float32", (1, 8))
    with pytest.raises(WorkloadError, match="found a trace of y; the model takes x: drop y and add x in the trace"):
        bindable([signature], {"y": np.zeros((2, 8), np.float32)}, 1)
    with pytest.raises(WorkloadError, match="takes x: drop t in the trace"):
        bindable([signature], {"x": np.zeros((2, 8), np.float32), "t": np.zeros(2)}, 1)
    with pytest.raises(WorkloadError, match=r"found requests of shape \(7,\); the model takes float32 \[1, 8\]"):
        bindable([signature], {"x": np.zeros((2, 7), np.float32)}, 1)


@pytest.mark.parametrize("shape", [[4, 8], [1, 8], ["n", 8]])
def test_calls_answer_as_the_oracle_does(shape):
    rng = np.random.default_rng()
    weight = rng.standard_normal((8, 3)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    proto = model(nodes, {"x": (TensorProto.FLOAT, shape)}, {"y": (TensorProto.FLOAT, [shape[0], 3])}, {"w": weight})
    requests = rng.standard_normal((5, 4, 8) if shape[0] == 4 else (5, 8)).astype(np.float32)
    with openinfer.load(proto) as engine:
        expected = expected_outputs(proto, engine.inputs, {"x": requests})["y"]
        call = call_on(engine, bindable(engine.inputs, {"x": requests}, 1))
        assert len(expected) == 5
        for row, answer in zip(requests, expected, strict=True):
            call.inputs["x"][...] = row
            call()
            np.testing.assert_allclose(call.outputs["y"].reshape(-1), answer.reshape(-1), atol=1e-5)


def test_a_model_on_the_fallback_is_called_through_run():
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    proto = model(nodes, {"x": (TensorProto.FLOAT, [2])}, {"y": (TensorProto.INT64, [1, "k"])})
    with openinfer.load(proto) as engine:
        call = call_on(engine, {"x": np.array([0, 1], np.float32)})
        assert isinstance(call, RunCall) and call.outputs["y"].tolist() == [[1]]
        call.inputs["x"][...] = 1
        call()
        assert call.outputs["y"].tolist() == [[0, 1]]
