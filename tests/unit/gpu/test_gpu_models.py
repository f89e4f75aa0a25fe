"""Whole models through a stand-in for CuPy that forbids every hidden copy: right in float64's eyes, and device-side from end to end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from agreement import generator
from host_device import COMPILER
from models import model
from onnx import TensorProto, helper
from strict_cupy import Array, CUDARuntimeError, StrictCupy, special

import openinfer
from openinfer.errors import GpuUnavailableError, MemoryBudgetError
from openinfer.frontend.float64 import discrepancy, reference, widen
from openinfer.memory import gpu_pools

F = TensorProto.FLOAT
HFT = Path(__file__).parents[3] / "workloads" / "hft"


@pytest.fixture(params=["unified", "pinned", "device"])
def engine_on(request, monkeypatch):
    """load(proto) on a strict CuPy whose pool has the fixture's kind; also the module, to be asked for its counts."""

    def load(proto, budget_mb=0):
        cupy = StrictCupy(managed=int(request.param == "unified"))
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        monkeypatch.setitem(sys.modules, "cupyx.scipy.special", special(cupy))
        kind = "auto" if request.param != "device" else "device"
        knobs = {"engine": {"backend": "gpu", "gpu_fusion": COMPILER is not None}, "memory": {"gpu_pool": kind, "gpu_budget_mb": budget_mb}}
        return openinfer.load(proto, knobs), cupy

    return load


def images(rng):
    """Convolution with batch normalization, pooling, an upsampled branch, a softmax over channels."""

    def weights(*shape):
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants = {
        "w": weights(8, 3, 3, 3),
        "scale": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "shift": weights(8),
        "mean": weights(8),
        "variance": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "d": weights(8, 1, 3, 3),
        "t": weights(8, 8, 2, 2),
        "up": np.array([1, 1, 2, 2], np.float32),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["s"], group=8, auto_pad="SAME_UPPER"),
        helper.make_node("HardSwish", ["s"], ["h"]),
        helper.make_node("MaxPool", ["h"], ["m"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        helper.make_node("ConvTranspose", ["m", "t"], ["u"], strides=[2, 2]),
        helper.make_node("Resize", ["m", "", "up"], ["v"], mode="linear"),
        helper.make_node("Add", ["u", "v"], ["a"]),
        helper.make_node("Softmax", ["a"], ["y"], axis=1),
        helper.make_node("ReduceMean", ["a", "axes"], ["z"], keepdims=0),
    ]
    return model(nodes, {"x": (F, ["n", 3, 16, 16])}, {"y": (F, ["n", 8, 8, 8]), "z": (F, ["n", 8])}, constants, opset=18)


def sequences(rng):
    """A bidirectional LSTM, layer normalization, attention by matrix products, an embedding."""

    def weights(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    constants = {
        "table": weights(20, 6),
        "w": weights(2, 20, 6),
        "r": weights(2, 20, 5),
        "b": weights(2, 40),
        "gain": weights(10),
        "minus": np.array([0, 0, -1], np.int64),
        "half": np.array(0.3, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("LSTM", ["e", "w", "r", "b"], ["states", "last"], hidden_size=5, direction="bidirectional"),
        helper.make_node("Transpose", ["states"], ["turned"], perm=[2, 0, 1, 3]),
        helper.make_node("Reshape", ["turned", "minus"], ["flat"]),
        helper.make_node("LayerNormalization", ["flat", "gain"], ["n"]),
        helper.make_node("Transpose", ["n"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["n", "k"], ["scores"]),
        helper.make_node("Mul", ["scores", "half"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "n"], ["o"]),
        helper.make_node("Gelu", ["o"], ["g"]),
        helper.make_node("Erf", ["g"], ["y"]),
    ]
    return model(nodes, {"ids": (TensorProto.INT64, ["t", "n"])}, {"y": (F, ["n", "t", 10])}, constants, opset=20)


@pytest.mark.parametrize("build", [images, sequences])
def test_a_whole_model_stays_on_the_device(engine_on, build):
    rng = generator()
    proto = build(rng)
    engine, cupy = engine_on(proto)
    uploads = 0
    for calls, batch in enumerate((1, 3, 3), 1):
        x = rng.integers(0, 20, (7, batch)) if build is sequences else rng.standard_normal((batch, 3, 16, 16)).astype(np.float32)
        inputs = {engine.inputs[0].name: x}
        found, expected = engine.run(inputs), reference(widen(proto), inputs)
        for name, value in found.items():
            assert value.dtype == np.float32 and discrepancy(value, expected[name]) <= 1e-5
        assert not engine.statistics().fallback
        assert cupy.downloads == calls * (len(found) + (build is sequences))  # a gather's flag: whether its indices were inside
        assert calls < 3 or cupy.uploads == uploads + 1  # a shape that was seen: the input alone
        uploads = cupy.uploads
    # Gelu and Erf of the second model are one kernel.
    assert cupy.inside == 0 and cupy.launches == (3 if build is sequences and COMPILER is not None else 0)


@pytest.mark.parametrize("engine_on", ["pinned"], indirect=True)
@pytest.mark.parametrize("name", ["tick_mlp", "gbdt"])
def test_the_models_of_hft_run_on_the_device(engine_on, name):
    rng = generator()
    proto = onnx.load(HFT / f"{name}.onnx")
    engine, cupy = engine_on(proto)
    signature = engine.inputs[0]
    x = rng.standard_normal((33, signature.shape[1])).astype(np.float32)
    cpu = openinfer.load(proto).run({signature.name: x})
    for output, value in engine.run({signature.name: x}).items():
        assert discrepancy(value, cpu[output]) <= 1e-5
    assert not engine.statistics().fallback and cupy.downloads == len(cpu)


def test_the_pool_has_the_kind_and_the_limit_that_were_chosen(engine_on):
    engine, cupy = engine_on(images(generator()), budget_mb=64)
    device = engine.statistics().device
    assert (cupy.allocator == "managed") == (device["pool"] == "unified") and cupy.limit == device["limit_bytes"] == 64 << 20
    engine.run({"x": np.zeros((1, 3, 16, 16), np.float32)})
    assert (cupy.staged > 0) == (device["pool"] == "pinned")


@pytest.mark.parametrize("engine_on", ["unified"], indirect=True)
def test_a_pool_that_is_full_is_a_named_error(engine_on):
    engine, _ = engine_on(images(generator()), budget_mb=1)
    with pytest.raises(MemoryBudgetError, match=r"Simulated: Out of memory allocating .* raise memory.gpu_budget_mb"):
        engine.run({"x": np.zeros((2000, 3, 16, 16), np.float32)})
    assert engine.run({"x": np.zeros((1, 3, 16, 16), np.float32)})["z"].shape == (1, 8)


@pytest.mark.parametrize("engine_on", ["device"], indirect=True)
def test_a_driver_that_fails_is_a_named_error(engine_on, monkeypatch):
    engine, _cupy = engine_on(images(generator()))
    x = {"x": np.zeros((1, 3, 16, 16), np.float32)}
    engine.run(x)

    def fail(*_):
        raise CUDARuntimeError("cudaErrorECCUncorrectable: uncorrectable ECC error")

    monkeypatch.setattr(Array, "get", fail)
    with pytest.raises(GpuUnavailableError, match=r"Simulated failed: cudaErrorECCUncorrectable.*check nvidia-smi"):
        engine.run(x)
    monkeypatch.undo()


def test_auto_takes_the_cpu_where_the_gpu_cannot_compute_or_is_full(monkeypatch):
    class Broken(StrictCupy):
        def arange(self, *_, **__):
            raise RuntimeError("libnvrtc.so.12: cannot open shared object file")

    proto = images(generator())
    for cupy, reason in ((Broken(), "which cannot compute: libnvrtc"), (StrictCupy(free=0), "found no free memory")):
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        with pytest.raises(openinfer.OpenInferError, match=reason):
            openinfer.load(proto, {"engine": {"backend": "gpu"}})
        engine = openinfer.load(proto, {"engine": {"backend": "auto"}})
        assert engine.statistics().backend.startswith("cpu: ") and reason in engine.statistics().backend


def test_a_cupy_of_this_machine_is_told_about_the_missing_device():
    with pytest.raises(openinfer.OpenInferError, match="found 0 CUDA devices"):
        gpu_pools.connect("auto", 0, lambda name: StrictCupy(devices=0))
