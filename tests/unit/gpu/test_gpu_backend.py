"""`engine.backend` without a GPU: one clear error, or the CPU and a reason."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest
from agreement import generator
from models import model
from onnx import TensorProto, helper

import openinfer
from openinfer.errors import ConfigError, GpuUnavailableError
from openinfer.memory.gpu_pools import connect

PROTO = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, ["n", 3])}, {"y": (TensorProto.FLOAT, ["n", 3])})


def without_cupy(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def cupy_with(count, version):
    """A CuPy whose runtime answers with numbers, or raises them."""

    def answer(value):
        if isinstance(value, Exception):
            raise value
        return value

    runtime = types.SimpleNamespace(getDeviceCount=lambda: answer(count), driverGetVersion=lambda: answer(version))
    return lambda name: types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize(
    ("find", "found"),
    [
        (without_cupy, "found no CuPy; run pip install"),
        (
            cupy_with(RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient"), 0),
            "no working CUDA driver: cudaErrorIns",
        ),
        (cupy_with(0, 12040), "found 0 CUDA devices"),
    ],
)
def test_what_is_missing_is_named_in_one_line(find, found):
    with pytest.raises(GpuUnavailableError) as caught:
        connect("auto", 0, find)
    assert found in str(caught.value) and 'engine.backend = "auto"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cupy_that_cannot_be_imported_is_told_from_none():
    def broken(name):
        raise ImportError("libnvrtc.so.12: cannot open shared object file")

    with pytest.raises(GpuUnavailableError, match=r"cannot be imported: libnvrtc"):
        connect("auto", 0, broken)


def no_gpu(pool, budget_bytes):
    return connect(pool, budget_bytes, without_cupy)


def test_gpu_raises_and_auto_takes_the_cpu_and_says_so(monkeypatch):
    monkeypatch.setattr("openinfer.runtime.gpu_backend.device_for.__defaults__", (no_gpu,))
    with pytest.raises(GpuUnavailableError):
        openinfer.load(PROTO, {"engine": {"backend": "gpu"}})
    engine = openinfer.load(PROTO, {"engine": {"backend": "auto"}})
    x = generator().standard_normal((4, 3)).astype(np.float32)
    assert (engine.run({"x": x})["y"] == np.maximum(x, 0)).all()
    assert engine.statistics().backend.startswith("cpu: no usable GPU: found no CuPy")
    assert openinfer.load(PROTO).statistics().backend == "cpu"


def test_an_engine_on_the_cpu_loads_nothing_of_the_gpu():
    code = "import sys, openinfer.engine; print([name for name in sys.modules if 'gpu' in name or 'cupy' in name or 'meaning' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_sandboxed_model_cannot_have_the_gpu():
    with pytest.raises(ConfigError, match=r"found sandbox\.mode = 'process' with engine\.backend = 'gpu'"):
        openinfer.load(PROTO, {"engine": {"backend": "gpu"}, "sandbox": {"mode": "process"}})
