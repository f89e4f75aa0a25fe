"""Reductions over every kind of axes against NumPy in float64 or in exact integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from agreement import agree, generator
from lowering import make_node, run_node
from models import model
from onnx import TensorProto, helper

pytestmark = pytest.mark.kernels

OPERATIONS = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, **k: np.abs(x).sum(**k),
    "ReduceL2": lambda x, **k: np.sqrt(np.square(x).sum(**k)),
    "ReduceSumSquare": lambda x, **k: np.square(x).sum(**k),
    "ReduceLogSum": lambda x, **k: np.log(x.sum(**k)),
    "ReduceLogSumExp": lambda x, **k: np.log(np.exp(x).sum(**k)),
}
ALL_AXES = [axes for count in range(1, 5) for axes in itertools.combinations(range(4), count)]


def reduced(op, x, axes, threads=1, **attributes):
    node = make_node(op, ["x", "axes"], **attributes)
    return run_node(node, {"x": x, "axes": np.array(axes, np.int64)}, ["axes"], threads=threads)[0]


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_set_of_axes(op, dtype):
    rng = generator()
    shape = tuple(int(d) for d in rng.integers(1, 12, 4))
    x = rng.standard_normal(shape).astype(dtype)
    if op == "ReduceLogSum":
        x = np.abs(x) + x.dtype.type(0.1)
    if op == "ReduceProd":  # near 1 in size, so that no product leaves float32
        x = np.sign(x) * rng.uniform(0.95, 1.05, shape).astype(dtype)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for axes in ALL_AXES:
        keep = int(rng.integers(2))
        print(shape, axes, keep)
        expected = OPERATIONS[op](x.astype(np.float64), axis=axes, keepdims=bool(keep))
        found = reduced(op, x, axes, keepdims=keep)
        assert found.shape == expected.shape and found.dtype == x.dtype
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
        assert (reduced(op, x, axes, threads=3, keepdims=keep) == found).all()


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp"])
def test_long_lines_and_wide_columns(op):
    rng = generator()
    for shape, axes in (((3, 1000), (1,)), ((3, 257), (0,)), ((2, 61, 530), (1,)), ((3, 31, 4, 33), (1, 3))):
        x = (rng.standard_normal(shape) + 5).astype(np.float32)
        expected = OPERATIONS[op](x.astype(np.float64), axis=axes)
        found = reduced(op, x, axes, keepdims=0)
        assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_integers_are_exact(op, dtype):
    rng = generator()
    x = rng.integers(0 if dtype == "uint8" else -4, 5, (3, 4, 5)).astype(dtype)
    for axes in ((0,), (1,), (2,), (0, 2), (0, 1, 2)):
        expected = OPERATIONS[op](x.astype(np.int64), axis=axes).astype(dtype)
        assert (reduced(op, x, axes, keepdims=0) == expected).all()


def test_nothing_to_reduce_and_no_axes():
    rng = generator()
    empty = np.zeros((2, 0, 3), np.float32)
    assert (reduced("ReduceSum", empty, [1], keepdims=0) == np.zeros((2, 3))).all()
    assert (reduced("ReduceMax", empty, [1], keepdims=0) == -np.inf).all()
    assert (reduced("ReduceProd", empty, [1], keepdims=0) == 1).all()
    x = rng.standard_normal((4, 5)).astype(np.float32)
    assert (reduced("ReduceSum", x, [], noop_with_empty_axes=1) == x).all()
    assert (reduced("ReduceSumSquare", x, [], noop_with_empty_axes=1) == x * x).all()
    assert reduced("ReduceSum", x, []).shape == (1, 1)


def test_a_nan_is_every_extreme():
    rng = generator()
    x = rng.standard_normal((3, 70)).astype(np.float32)
    x[1, int(rng.integers(70))] = np.nan
    for op in ("ReduceMax", "ReduceMin"):
        assert np.isnan(reduced(op, x, [1], keepdims=0)).tolist() == [False, True, False]
        assert np.isnan(reduced(op, np.ascontiguousarray(x.T), [0], keepdims=0)).tolist() == [False, True, False]


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_places_of_extremes(op):
    rng = generator()
    x = rng.integers(0, 4, (3, 5, 7)).astype(np.float32)
    for axis in (0, 1, 2, -1):
        function = np.argmax if op == "ArgMax" else np.argmin
        found = run_node(make_node(op, ["x"], axis=axis, keepdims=0), {"x": x}, threads=2)[0]
        assert found.dtype == np.int64 and (found == function(x, axis)).all()
        found = run_node(make_node(op, ["x"], axis=axis, keepdims=0, select_last_index=1), {"x": x})[0]
        assert (found == x.shape[axis] - 1 - function(np.flip(x, axis), axis)).all()


@pytest.mark.parametrize("axes", [[1], [2], [1, 3], [2, 3], [1, 2, 3]])
def test_a_row_alone_keeps_its_bits(axes):
    rng = generator()
    F = TensorProto.FLOAT
    proto = model(
        [helper.make_node("ReduceMean", ["x", "axes"], ["y"])],
        {"x": (F, ["n", 3, 50, 7])},
        {"y": (F, ["n", *["d"] * 3])},
        {"axes": np.array(axes, np.int64)},
        opset=18,
    )
    agree(proto, {"x": rng.standard_normal((4, 3, 50, 7)).astype(np.float32)})
