"""The call that workers make: no GIL meanwhile, and stamps in the order of events."""

from __future__ import annotations

import time

import numpy as np
import pytest
from models import mlp

import openinfer
from openinfer.ir.graph import TensorType
from openinfer.runtime.executor import address


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OPENINFER_CACHE", str(tmp_path_factory.getbasetemp() / "timed-cache"))


def test_stamps_lie_between_the_caller_s_own_clock_readings():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    x = np.random.default_rng(seed).standard_normal((5, 40)).astype(np.float32)
    with openinfer.load(mlp()) as engine:
        instance = engine._backend.program.instance((TensorType("float32", (5, 40)),))
        context, stamps = instance.timed()
        y = np.full((5, 3), np.nan, np.float32)
        address(context.table, instance, {"x": x}, {"probabilities": y})
        for _ in range(3):
            before = time.perf_counter_ns()
            context.call()
            after = time.perf_counter_ns()
            assert before <= stamps[1] <= stamps[2] <= after
        assert y.tobytes() == engine.run({"x": x})["probabilities"].tobytes()
