"""The graph executor of the GPU backend, with NumPy as its device."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from agreement import generator
from host_device import COMPILER, HostDevice
from models import model
from onnx import TensorProto, helper

import openinfer
from openinfer.errors import IndexRangeError, InputError
from openinfer.frontend.float64 import reference, widen
from openinfer.frontend.onnx_model import read
from openinfer.passes.pipeline import optimize
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.gpu_executor import GpuExecutor

F = TensorProto.FLOAT
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler; apt-get install gcc")


def executor_of(proto, device, fusion=False):
    fallback = Fallback()
    return GpuExecutor(optimize(read(proto), "model", fallback.evaluate, {}), device, fallback, fusion)


def perceptron(rng):
    """Two dense layers, a gate, and a reshape by a shape that follows from the batch."""
    constants = {
        "w": rng.standard_normal((6, 8)).astype(np.float32),
        "b": rng.standard_normal(8).astype(np.float32),
        "v": rng.standard_normal((8, 4)).astype(np.float32),
        "first": np.array([0], np.int64),
        "rest": np.array([2, 2], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Sigmoid", ["q"], ["s"]),
        helper.make_node("Mul", ["q", "s"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["o"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["o", "wanted"], ["y"]),
    ]
    return model(nodes, {"x": (F, ["n", 6])}, {"y": (F, ["n", 2, 2])}, constants)


def test_weights_are_uploaded_once_inputs_once_a_call_and_outputs_come_back_once():
    rng = generator()
    proto, device = perceptron(rng), HostDevice()
    executor = executor_of(proto, device)
    assert not executor.refused
    for calls in range(1, 4):
        x = rng.standard_normal((calls, 6)).astype(np.float32)
        found, expected = executor.run({"x": x})["y"], reference(widen(proto), {"x": x})["y"]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
        # Three weights; the shape arithmetic never leaves the host.
        assert (device.uploads, device.downloads) == (3 + calls, calls)


def test_values_are_dropped_after_their_last_reader():
    executor = executor_of(perceptron(generator()), HostDevice())
    freed = [name for group in executor._groups for name in group.frees]
    assert len(freed) == len(set(freed)) and "y" not in freed and {"q", "s", "h", "o", "wanted"} <= set(freed)


@needs_compiler
def test_a_chain_is_one_kernel():
    rng, device = generator(), HostDevice()
    proto = perceptron(rng)
    fused, plain = executor_of(proto, device, fusion=True), executor_of(proto, HostDevice())
    x = rng.standard_normal((5, 6)).astype(np.float32)
    expected = plain.run({"x": x})["y"]
    assert np.abs(fused.run({"x": x})["y"] - expected).max() <= 1e-6 * np.abs(expected).max()
    assert fused.fused == 3 and device.launches == 1


def test_a_node_without_a_meaning_runs_between_two_copies():
    proto = model([helper.make_node("Det", ["x"], ["d"]), helper.make_node("Neg", ["d"], ["y"])], {"x": (F, [2, 3, 3])}, {"y": (F, [2])})
    device = HostDevice()
    executor = executor_of(proto, device)
    x = generator().standard_normal((2, 3, 3)).astype(np.float32)
    assert np.allclose(executor.run({"x": x})["y"], -np.linalg.det(x.astype(np.float64)), atol=1e-4)
    assert list(executor.refused.values()) == ["no meaning of this name"]
    assert (device.uploads, device.downloads) == (1, 1)


def test_an_engine_on_a_device_runs_binds_and_counts(monkeypatch):
    rng = generator()
    monkeypatch.setattr("openinfer.runtime.gpu_backend.device_for.__defaults__", (lambda pool, budget: HostDevice(),))
    proto = perceptron(rng)
    engine = openinfer.load(proto, {"engine": {"backend": "gpu", "gpu_fusion": COMPILER is not None}})
    x = rng.standard_normal((3, 6)).astype(np.float32)
    expected = reference(widen(proto), {"x": x})["y"]
    assert np.abs(engine.run({"x": x})["y"] - expected).max() <= 1e-5 * np.abs(expected).max()
    y = np.full((3, 2, 2), np.nan, np.float32)
    call = engine.bind({"x": x}, {"y": y})
    for _ in range(2):
        x[...] = rng.standard_normal(x.shape)
        call()
        expected = reference(widen(proto), {"x": x})["y"]
        assert call.outputs["y"] is y and np.abs(y - expected).max() <= 1e-5 * np.abs(expected).max()
    statistics = engine.statistics()
    assert statistics.backend == "gpu" and statistics.device["device"] == "host" and statistics.bound_calls == 1
    with pytest.raises(InputError, match="writable, C-contiguous"):
        engine.bind({"x": x}, {"y": y.astype(np.float64)})
    engine.close()


def test_a_request_that_does_not_fit_a_node_is_named():
    proto = model([helper.make_node("MatMul", ["x", "y"], ["z"])], {"x": (F, ["a", "b"]), "y": (F, ["c", "d"])}, {"z": (F, ["e", "f"])})
    with pytest.raises(InputError, match="operator MatMul"):
        executor_of(proto, HostDevice()).run({"x": np.zeros((2, 3), np.float32), "y": np.zeros((4, 5), np.float32)})


@pytest.mark.parametrize(
    ("op", "names", "shape"),
    [
        ("Gather", "xi", [4]),
        ("GatherElements", "xi", [4, 3]),
        ("GatherND", "xi", [4, 1]),
        ("ScatterElements", "xiu", [4, 3]),
        ("ScatterND", "xiu", [4, 1]),
    ],
)
@pytest.mark.parametrize("constant", [False, True])
def test_an_index_outside_its_axis_is_an_error(op, names, shape, constant):
    rng = generator()
    good = rng.integers(-5, 5, shape)
    bad = good.copy()
    bad.flat[int(rng.integers(bad.size))] = int(rng.choice([-6, 5, 2**40, -(2**40)]))
    given = {"x": rng.standard_normal((5, 3)).astype(np.float32), "u": rng.standard_normal((4, 3)).astype(np.float32)}
    ports = {"x": (F, [5, 3]), "i": (TensorProto.INT64, shape), "u": (F, [4, 3])}
    found = {}
    for label, indices in (("good", good), ("bad", bad)):
        held = {"i": indices} if constant else {}
        inputs = {name: ports[name] for name in names if name not in held}
        proto = model([helper.make_node(op, list(names), ["y"])], inputs, {"y": (F, [5 if "u" in names else 4, 3])}, held, opset=18)
        request = {name: array for name, array in {**given, "i": indices}.items() if name in inputs}
        found[label] = functools.partial(executor_of(proto, HostDevice()).run, request), proto, request
    run, proto, request = found["good"]
    assert (run()["y"] == openinfer.load(proto).run(request)["y"]).all()
    with pytest.raises(IndexRangeError, match="outside its axis"):
        found["bad"][0]()


@needs_compiler
def test_threads_share_an_executor():
    rng = generator()
    executor = executor_of(perceptron(rng), HostDevice(), fusion=True)
    inputs = [rng.standard_normal((rows, 6)).astype(np.float32) for rows in (2, 3, 5, 7) * 2]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda x: executor.run({"x": x})["y"], inputs * 5))
    for x, y in zip(inputs * 5, found, strict=True):
        assert (y == executor.run({"x": x})["y"]).all()


def test_what_the_host_knows_is_not_uploaded_and_large_things_are_not_made_there():
    """A tensor that a shape describes is made on the device."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Concat", ["shape", "more"], ["wanted"], axis=0),
        helper.make_node("ConstantOfShape", ["wanted"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["y"], keepdims=0),
    ]
    proto = model(nodes, {"x": (F, ["n"])}, {"y": (F, [])}, {"more": np.array([100, 100], np.int64)})
    device = HostDevice()
    executor = executor_of(proto, device)
    assert executor.run({"x": np.zeros(3, np.float32)})["y"] == 0
    assert (device.uploads, device.downloads) == (0, 1) and not executor.refused
