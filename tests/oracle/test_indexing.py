"""Operators that read and write at run-time indices, scan or select along an axis, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import generator
from lowering import make_node, run_node
from models import model
from onnx import TensorProto, helper

import openinfer
from openinfer.codegen import linked
from openinfer.errors import IndexRangeError


def shape_of(rng, rank):
    return tuple(int(d) for d in rng.integers(1, 8, rank))


@pytest.mark.parametrize("index", ["int32", "int64"])
def test_gather_elements_and_gather(index):
    rng = generator()
    for rank in (1, 2, 3):
        x = rng.standard_normal(shape_of(rng, rank)).astype(np.float32)
        axis = int(rng.integers(-rank, rank))
        size = x.shape[axis]
        shape = list(x.shape)
        shape[axis] = int(rng.integers(1, 10))
        indices = rng.integers(-size, size, shape).astype(index)
        found = run_node(make_node("GatherElements", ["x", "i"], axis=axis), {"x": x, "i": indices}, threads=3)[0]
        assert (found == np.take_along_axis(x, indices % size, axis)).all()
        found = run_node(make_node("Gather", ["x", "i"], axis=axis), {"x": x, "i": indices}, threads=3)[0]
        assert (found == np.take(x, indices % size, axis)).all()


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_elements(reduction):
    rng = generator()
    x = rng.standard_normal(shape_of(rng, 3)).astype(np.float32)
    axis = int(rng.integers(3))
    indices = rng.integers(-x.shape[axis], x.shape[axis], [int(rng.integers(1, d + 1)) for d in x.shape]).astype(np.int64)
    updates = rng.standard_normal(indices.shape).astype(np.float32)
    node = make_node("ScatterElements", ["x", "i", "u"], axis=axis, reduction=reduction)
    expected = x.copy()
    combine = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}.get(reduction, lambda old, new: new)
    for place in np.ndindex(*indices.shape):
        to = tuple(indices[place] if a == axis else c for a, c in enumerate(place))
        expected[to] = combine(expected[to], updates[place])
    assert (run_node(node, {"x": x, "i": indices, "u": updates}, threads=2)[0] == expected).all()


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_and_gather_slices(reduction):
    rng = generator()
    for depth in (1, 2, 3):
        x = rng.integers(-50, 50, shape_of(rng, 3)).astype(np.int64)
        rows = int(rng.integers(1, 9))
        indices = np.stack([rng.integers(-d, d, rows) for d in x.shape[:depth]], -1)
        updates = rng.integers(-50, 50, (rows, *x.shape[depth:])).astype(np.int64)
        expected = x.copy()
        combine = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}.get(reduction, lambda old, new: new)
        for row in range(rows):
            expected[tuple(indices[row])] = combine(expected[tuple(indices[row])], updates[row])
        node = make_node("ScatterND", ["x", "i", "u"], reduction=reduction)
        assert (run_node(node, {"x": x, "i": indices, "u": updates}, threads=2)[0] == expected).all()
        found = run_node(make_node("GatherND", ["x", "i"]), {"x": x, "i": indices}, threads=3)[0]
        assert (found == x[tuple(indices.T)]).all()


def test_gather_slices_of_a_batch():
    rng = generator()
    x = rng.standard_normal((3, 5, 4)).astype(np.float64)
    indices = rng.integers(-5, 5, (3, 6, 1))
    found = run_node(make_node("GatherND", ["x", "i"], batch_dims=1), {"x": x, "i": indices}, threads=2)[0]
    assert (found == np.stack([x[b][indices[b, :, 0]] for b in range(3)])).all()


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_running_sums_and_products(dtype):
    rng = generator()
    x = rng.integers(-3, 4, shape_of(rng, 3)).astype(dtype)
    for op, function in (("CumSum", np.cumsum), ("CumProd", np.cumprod)):
        for axis in range(3):
            for reverse in (0, 1):
                node = make_node(op, ["x", "a"], reverse=reverse)
                turned = np.flip(x, axis) if reverse else x
                expected = function(turned.astype(np.float64), axis)
                expected = np.flip(expected, axis) if reverse else expected
                found = run_node(node, {"x": x, "a": np.array(axis)}, ["a"], threads=2)[0]
                assert found.dtype == x.dtype and (found == expected.astype(np.float32).astype(dtype)).all()
                if op == "CumSum":
                    node = make_node(op, ["x", "a"], reverse=reverse, exclusive=1)
                    assert (run_node(node, {"x": x, "a": np.array(axis)}, ["a"])[0] == expected - x).all()


def test_the_largest_and_the_smallest_in_order():
    rng = generator()
    x = rng.integers(0, 9, (3, 17, 2)).astype(np.float32)
    for axis in range(3):
        for largest in (0, 1):
            k = int(rng.integers(0, x.shape[axis] + 1))
            node = make_node("TopK", ["x", "k"], ["v", "i"], axis=axis, largest=largest)
            values, indices = run_node(node, {"x": x, "k": np.array([k])}, ["k"], threads=2)
            order = np.argsort(-x if largest else x, axis, kind="stable").take(range(k), axis)
            assert (indices == order).all() and (values == np.take_along_axis(x, order, axis)).all()


def test_one_hot():
    rng = generator()
    indices = rng.integers(-6, 7, (4, 3))
    for axis in (-1, 0, 1):
        node = make_node("OneHot", ["i", "d", "v"], axis=axis)
        found = run_node(node, {"i": indices, "d": np.array(5), "v": np.float32([2, 7])}, ["d"], threads=2)[0]
        inside = (indices >= -5) & (indices < 5)
        expected = np.where((np.arange(5) == (indices % 5)[..., None]) & inside[..., None], 7, 2)
        assert (found == np.moveaxis(expected, -1, axis)).all()


@pytest.mark.parametrize("op", ["LogSoftmax", "Hardmax"])
def test_forms_of_softmax(op):
    rng = generator()
    x = (rng.standard_normal((3, 7, 5)) * 20).astype(np.float32)
    for axis in (0, 1, 2):
        found = run_node(make_node(op, ["x"], axis=axis, version=13), {"x": x}, threads=2)[0]
        wide = x.astype(np.float64) - x.max(axis, keepdims=True)
        if op == "LogSoftmax":
            expected = wide - np.log(np.exp(wide).sum(axis, keepdims=True))
            assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
        else:
            assert (found == (wide == 0)).all()


def test_floats_become_integers():
    rng = generator()
    x = np.concatenate([rng.uniform(-100, 100, 50), [0.0, -0.9, 0.9]]).astype(np.float32)
    for code, dtype in ((6, np.int32), (7, np.int64), (3, np.int8)):
        assert (run_node(make_node("Cast", ["x"], to=code), {"x": x})[0] == x.astype(dtype)).all()
    large = rng.uniform(0, 1.8e19, 40)
    assert (run_node(make_node("Cast", ["x"], to=13), {"x": large})[0] == large.astype(np.uint64)).all()


def test_triangles_remainders_and_shifts():
    rng = generator()
    x = rng.standard_normal((2, 5, 7)).astype(np.float32)
    for k in (-9, -2, 0, 3, 9):
        for upper, function in ((1, np.triu), (0, np.tril)):
            node = make_node("Trilu", ["x", "k"], upper=upper)
            assert (run_node(node, {"x": x, "k": np.array(k)}, ["k"])[0] == function(x, k)).all()
    a, b = rng.uniform(-9, 9, 60), rng.uniform(0.5, 4, 60) * rng.choice([-1, 1], 60)
    assert (run_node(make_node("Mod", ["a", "b"]), {"a": a, "b": b})[0] == np.mod(a, b)).all()
    bits, by = rng.integers(0, 256, 40).astype(np.uint8), rng.integers(0, 12, 40).astype(np.uint8)
    for direction, expected in (("LEFT", bits.astype(int) << by), ("RIGHT", bits.astype(int) >> by)):
        found = run_node(make_node("BitShift", ["a", "b"], direction=direction), {"a": bits, "b": by})[0]
        assert (found == expected.astype(np.uint8)).all()


def test_a_shape_made_at_run_time_stays_native():
    rng = generator()
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ConstantOfShape", ["s"], ["z"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])),
        helper.make_node("Mul", ["x", "z"], ["y"]),
    ]
    proto = model(nodes, {"x": (TensorProto.FLOAT, ["n", 80, 80])}, {"y": (TensorProto.FLOAT, ["n", 80, 80])})
    engine = openinfer.load(proto)
    for n in (1, 3):
        x = rng.standard_normal((n, 80, 80)).astype(np.float32)
        assert (engine.run({"x": x})["y"] == x * np.float32(2.5)).all()
    assert not engine.statistics().fallback


OUTSIDE = {
    # operator: attributes, inputs; the axis that the indices go by has 5 elements
    "Gather": ({"axis": 0}, ["x", "i"]),
    "GatherElements": ({"axis": 0}, ["x", "i"]),
    "GatherND": ({}, ["x", "i"]),
    "ScatterElements": ({"axis": 0}, ["x", "i", "u"]),
    "ScatterND": ({}, ["x", "i", "u"]),
}


@pytest.mark.parametrize("inlined", [0, 16])
@pytest.mark.parametrize("op", OUTSIDE)
def test_an_index_outside_its_axis_is_an_error(op, inlined, monkeypatch):
    monkeypatch.setattr(linked, "INLINED_KERNELS", inlined)
    rng = generator()
    attributes, names = OUTSIDE[op]
    rows, width = 6, 20_000  # enough work for two threads
    shape = [rows, width] if op.endswith("Elements") else [rows, 1] if op.endswith("ND") else [rows]
    inputs = {"x": (TensorProto.FLOAT, [5, width]), "i": (TensorProto.INT64, shape), "u": (TensorProto.FLOAT, [rows, width])}
    inputs = {name: inputs[name] for name in names}
    nodes = [helper.make_node(op, names, ["g"], **attributes), helper.make_node("Neg", ["g"], ["y"])]
    height = 5 if op.startswith("Scatter") else rows
    proto = model(nodes, inputs, {"y": (TensorProto.FLOAT, [height, width])}, opset=18)
    given = {name: rng.standard_normal(size).astype(np.float32) for name, (_, size) in inputs.items() if name != "i"}
    good = rng.integers(-5, 5, shape)
    bad = good.copy()
    bad.flat[int(rng.integers(bad.size))] = int(rng.choice([-6, 5, 2**40, -(2**40)]))
    for threads in (1, 2):
        with openinfer.load(proto, {"engine": {"threads": threads}}) as engine:
            for _ in range(2):
                y = {"y": np.full((height, width), np.nan, np.float32)}
                with pytest.raises(IndexRangeError, match="outside its axis"):
                    engine.run({**given, "i": bad})
                with pytest.raises(IndexRangeError, match="outside its axis"):
                    engine.bind({**given, "i": bad}, y)()
                engine.bind({**given, "i": good}, y)()
                assert (y["y"] == engine.run({**given, "i": good})["y"]).all()
            assert not engine.statistics().fallback
