"""Single instruments: latency on a simulated clock, locks, change points, stacks."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from models import mlp
from openinfer.profiles import histogram, latency, stacks, steady
from openinfer.profiles.locks import Locks, WatchedLock
from openinfer.workloads.replay import replay_inline

import openinfer


def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed)


def test_a_stall_shows_in_the_corrected_tail_alone():
    drawn, busy_ns, now = rng(), 200_000, [0]
    stalled = set(range(1000, 20_000, 2000))  # 10 of 20,000 calls: fewer than p99.9 leaves out

    def clock() -> int:
        now[0] += 100
        return now[0]

    def serve(at: int, size: int) -> None:
        now[0] += 50_000_000 if at in stalled else busy_ns

    gaps = drawn.exponential(busy_ns / 0.8 / 1e9, 20_000)
    # Idle time is passed in steps of the clock: long enough ones to be quick, short enough to be on time.
    times = replay_inline(np.cumsum(gaps), serve, clock=clock)
    corrected, raw = (histogram.quantile(histogram.histogram(values), 0.999) for values in (times.corrected_ns, times.raw_ns))
    assert raw < 1_000_000
    assert corrected > 40_000_000


def test_stages_add_up_and_kernels_are_inside_calls():
    drawn = rng()
    with openinfer.load(mlp(), {"scheduler": {"max_batch": 4}}) as engine:
        inputs = {"x": drawn.standard_normal((300, 40)).astype(np.float32)}
        stamped = latency.stamped(engine, range(1, 5), inputs, inputs, 300)
        times = replay_inline(np.cumsum(drawn.exponential(2e-6, 300)), stamped.serve, max_batch=4, max_delay_us=5)
    found = latency.stages(times, stamped, 5000)
    assert all(len(values) == 300 and (values >= 0).all() for values in found.values())
    assert np.array_equal(found["queue"] + found["batch"] + found["copy"] + found["kernel"], found["corrected"])
    assert (found["kernel"] > 0).all() and (found["batch"] <= 5000).all()


def test_locks_that_are_waited_for_are_named_and_behave_as_locks():
    locks = Locks()
    with locks.watch():
        planted, again = threading.Lock(), threading.RLock()
        condition = threading.Condition()
    assert isinstance(planted, WatchedLock) and not isinstance(threading.Lock(), WatchedLock)
    with again, again:
        assert again.acquire(False)
        again.release()
    inside, free = threading.Event(), threading.Event()

    def hold() -> None:
        with planted:
            inside.set()
            free.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    assert not planted.acquire(False) and planted.locked()
    threading.Timer(0.02, free.set).start()
    with planted:
        thread.join()
    with condition:
        assert not condition.wait(0.001)
    first = locks.waits[0]
    assert first.name.startswith("planted") or "test_instruments.py" in first.name
    assert first.contended == 1 and first.waited_ns >= 5_000_000 and first.longest_ns == first.waited_ns


def test_engine_locks_are_watched_and_put_back():
    with openinfer.load(mlp()) as engine:
        plain = engine._lock._lock
        locks = Locks()
        with locks.watch():
            assert isinstance(engine._lock._lock, WatchedLock)
            engine.run({"x": rng().standard_normal((1, 40)).astype(np.float32)})
            engine.bind({"x": np.zeros((1, 40), np.float32)})
        assert engine._lock._lock is plain
    assert any(waits.acquired and waits.name == "Engine._lock" for waits in locks.waits), locks.waits


@pytest.mark.parametrize("step", [0.7, 1.4])
def test_a_change_of_level_is_found_where_it_is(step):
    levels = np.exp(rng().normal(0, 0.02, 60)) * np.where(np.arange(60) < 45, 1.0, step)
    found = steady.verdict(levels)
    assert not found.steady and abs(found.from_block - 45) <= 1
    assert found.changes[-1][2] / found.changes[-1][1] == pytest.approx(step, rel=0.05)
    early = steady.verdict([*levels[35:], *(levels[-1] * np.exp(rng().normal(0, 0.02, 30)))])
    assert early.steady and abs(early.from_block - 10) <= 1


def test_noise_alone_is_steady():
    assert steady.verdict(np.exp(rng().normal(0, 0.02, 60))).steady
    assert steady.verdict([5.0] * 40).changes == ()


def test_generated_code_is_given_to_its_layers_and_no_sample_is_lost(tmp_path):
    taken = {"main (a.py:1);call;0x10ff (?)": 10, "main (a.py:1);0x9999 (?)": 3, "main (a.py:1);read (libc.so.6)": 2}
    shares = [("Gemm a", 0.66), ("Gemm b", 0.33), ("Softmax c", 0.01)]
    named = stacks.attributed(taken, lambda address: 0x1000 <= address < 0x2000, shares)
    assert sum(named.values()) == 15
    assert named["main (a.py:1);call;compiled model;Gemm a"] == 7 and named["main (a.py:1);call;compiled model;Gemm b"] == 3
    assert named["main (a.py:1);0x9999 (?)"] == 3
    stacks.write_speedscope(named, tmp_path / "s.json", "model")
    document = json.loads((tmp_path / "s.json").read_text())
    (profile,) = document["profiles"]
    assert profile["endValue"] == sum(profile["weights"]) == 15
    names = [frame["name"] for frame in document["shared"]["frames"]]
    shown = {tuple(names[k] for k in sample): weight for sample, weight in zip(profile["samples"], profile["weights"], strict=True)}
    assert shown["main (a.py:1)", "call", "compiled model", "Gemm a"] == 7
