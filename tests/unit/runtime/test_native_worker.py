"""Workers that never hold the GIL: every call is made once, in order, and reported."""

from __future__ import annotations

import gc
import os
import select
import threading
import time

import numpy as np
import pytest
from models import mlp

import openinfer
from openinfer.ir.graph import TensorType
from openinfer.runtime.executor import address
from openinfer.runtime.native_worker import NativeWorkers


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OPENINFER_CACHE", str(tmp_path_factory.getbasetemp() / "native-worker-cache"))


def prepared(engine, x):
    """A table that answers `x`, and where the answer goes."""
    instance = engine._backend.program.instance((TensorType("float32", x.shape),))
    context = instance.context()
    y = np.full((len(x), 3), np.nan, np.float32)
    address(context.table, instance, {"x": x}, {"probabilities": y})
    return context.table, y


def collected(workers, count):
    found = []
    while len(found) < count:
        assert select.select([workers.descriptor], [], [], 60)[0]
        found += workers.collect()
    return found


@pytest.mark.parametrize("spin_us", [0, 1000])
@pytest.mark.parametrize("threads", [1, 3])
def test_calls_are_made_and_reported(threads, spin_us):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    x = np.random.default_rng(seed).standard_normal((200, 40)).astype(np.float32)
    with openinfer.load(mlp()) as engine:
        calls = [prepared(engine, x[i : i + 1]) for i in range(len(x))]
        workers = NativeWorkers(threads, spin_us)
        done, number = [], 0
        while number < len(calls):
            while number < len(calls) and workers.hand(calls[number][0], number):
                number += 1
            done += collected(workers, 1)
        done += collected(workers, len(calls) - len(done))
        assert sorted(one.tag for one in done) == list(range(len(calls))) and workers.outstanding() == 0
        now = time.perf_counter_ns()
        assert all(0 < one.begun_ns <= one.ended_ns <= now and one.status == 0 for one in done)
        if threads == 1:
            assert [one.tag for one in done] == list(range(len(calls)))
        for i, (_, y) in enumerate(calls):
            assert y.tobytes() == engine.run({"x": x[i : i + 1]})["probabilities"].tobytes()
        workers.close()


def test_a_call_is_handed_to_the_first_threads_alone():
    x = np.ones((1, 40), np.float32)
    with openinfer.load(mlp()) as engine:
        calls = [prepared(engine, x) for _ in range(4)]
        workers = NativeWorkers(2, 0)
        assert all(workers.hand(table, number, 1) for number, (table, _) in enumerate(calls[:3]))
        assert not workers.hand(calls[3][0], 3, 1)  # the first thread's ring is full
        assert workers.hand(calls[3][0], 3)
        assert sorted(one.tag for one in collected(workers, 4)) == [0, 1, 2, 3]
        workers.close()


def test_closing_does_what_was_handed_in():
    x = np.ones((1, 40), np.float32)
    with openinfer.load(mlp()) as engine:
        calls = [prepared(engine, x) for _ in range(3)]
        workers = NativeWorkers(1, 0)
        assert all(workers.hand(table, None) for table, _ in calls)
        assert not workers.hand(calls[0][0], None)
        workers.close()
        assert len(workers.collect()) == 3
        assert all(np.isfinite(y).all() for _, y in calls)


def test_dropped_workers_end_and_close_their_descriptor():
    x = np.ones((1, 40), np.float32)
    before = set(threading.enumerate())
    with openinfer.load(mlp()) as engine:
        table, _ = prepared(engine, x)
        workers = NativeWorkers(2, 0)
        workers.hand(table, None)
        assert len(set(threading.enumerate()) - before) == 2
        descriptor = workers.descriptor
        del workers
        gc.collect()
        assert not set(threading.enumerate()) - before
        with pytest.raises(OSError):
            os.fstat(descriptor)
