"""An engine against onnx.reference in float64, on data drawn anew each run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from host_device import HostDevice

import openinfer
from openinfer.frontend.float64 import reference, widen
from openinfer.frontend.onnx_model import read
from openinfer.passes.pipeline import optimize
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.gpu_executor import GpuExecutor


def generator() -> np.random.Generator:
    """A new seed each run, printed."""
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed)


def runs(usual: int) -> int:
    """How many random cases a test draws: `usual`, or fewer where `OPENINFER_TEST_DRAWS` says so."""
    return min(usual, int(os.environ.get("OPENINFER_TEST_DRAWS", usual)))


def agree(proto: Any, inputs: Mapping[str, np.ndarray], compiled: bool = True, batched: bool = True) -> Any:
    """Every output within 1e-5 of its largest value, compiled and by the operators' meanings, nothing on the fallback; with `batched` each
    row of every input alone gives the same bits. Returns the engine.
    """
    engine = openinfer.load(proto)
    found, expected = engine.run(inputs), reference(widen(proto), inputs)
    assert not compiled or not engine.statistics().fallback, engine.statistics().fallback
    for name, value in found.items():
        assert value.shape == expected[name].shape
        assert np.abs(value - expected[name]).max(initial=0) <= 1e-5 * (np.abs(expected[name]).max(initial=0) or 1)
    fallback = Fallback()
    meant = GpuExecutor(optimize(read(proto), "model", fallback.evaluate, {}), HostDevice(), fallback, fusion=False)
    for name, value in meant.run(inputs).items():
        assert value.shape == expected[name].shape and value.dtype == found[name].dtype
        assert np.abs(value - expected[name]).max(initial=0) <= 1e-5 * (np.abs(expected[name]).max(initial=0) or 1)
    assert not compiled or not meant.refused, meant.refused
    if batched:
        for i in range(len(inputs["x"])):
            alone = engine.run({name: value[i : i + 1] for name, value in inputs.items()})
            for name, value in found.items():
                assert (alone[name][0] == value[i]).all()
    return engine
