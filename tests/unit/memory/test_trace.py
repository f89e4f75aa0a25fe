"""Recorded allocations replay the same figures in every run, under any policy; and a pool under mixed load stays whole."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from openinfer.errors import InputError
from openinfer.memory.controller import Policy
from openinfer.memory.pool import Pool
from openinfer.memory.trace import AllocationTrace, Recorder, replay


def _recorded(seed, requests=4000):
    """Simulated hours of mixed shapes, bursts and sessions, recorded on a pool without a budget."""
    rng = np.random.default_rng(seed)
    now = 0.0
    record = Recorder()
    pool = Pool(Policy(controller=False), clock=lambda: now, record=record)
    shapes = np.exp(rng.uniform(np.log(1 << 14), np.log(1 << 20), 24)).astype(int).tolist()
    leaving = []
    for number in range(requests):
        now += float(rng.exponential(0.001 if number % 400 < 80 else 0.2))
        while leaving and leaving[0][0] <= now:
            heapq.heappop(leaving)[2].release()
        session = number % 25 == 0
        lease = pool.lease(shapes[int(rng.integers(24))], "session" if session else "request")
        heapq.heappush(leaving, (now + float(rng.exponential(120.0 if session else 0.1)), number, lease))
    for _ in range(5):  # a lull: what the pool still holds then is what it cannot do without
        now += 11.0
        while leaving and leaving[0][0] <= now:
            heapq.heappop(leaving)[2].release()
        pool.lease(1000, "request").release()
    return record.trace(), pool.statistics()


def test_a_replay_under_the_same_policy_is_the_recording(seed, tmp_path):
    trace, recorded = _recorded(seed)
    trace.save(tmp_path / "t.npz")
    loaded = AllocationTrace.load(tmp_path / "t.npz")
    found = [replay(each, Policy(controller=False)) for each in (trace, loaded)]
    assert found[0] == found[1] and found[0].refused == 0
    for name in ("leases", "misses", "live_leases", "requested_bytes", "leased_bytes", "high_water_bytes", "held_bytes"):
        assert getattr(found[0].statistics, name) == getattr(recorded, name), name


def test_the_controller_keeps_fragmentation_low_where_its_absence_does_not(seed):
    trace, _ = _recorded(seed)
    on, off = (replay(trace, Policy(controller=controller)) for controller in (True, False))
    assert on.statistics.external_fragmentation <= 0.05 < off.statistics.external_fragmentation
    assert on.mean_leased_bytes == pytest.approx(off.mean_leased_bytes)
    assert on.mean_held_bytes < 0.7 * off.mean_held_bytes
    assert on.statistics.high_water_bytes <= off.statistics.high_water_bytes


def test_a_smaller_budget_refuses_what_does_not_fit_and_serves_the_rest(seed):
    trace, recorded = _recorded(seed)
    free = replay(trace, Policy())
    tight = replay(trace, Policy(budget_bytes=recorded.leased_bytes + (4 << 20)))
    assert free.refused == 0 < tight.refused < free.statistics.leases
    assert tight.statistics.high_water_bytes <= recorded.leased_bytes + (4 << 20)
    assert tight.statistics.leases + tight.refused == free.statistics.leases


def test_what_is_no_trace_is_refused(tmp_path):
    trace, _ = _recorded(1, 10)
    for name, content in (("text", b"nothing"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="allocation trace"):
            AllocationTrace.load(tmp_path / name)
    np.savez(
        tmp_path / "short.npz", time_s=trace.time_s[1:], number=trace.number, size_bytes=trace.size_bytes, owner=trace.owner, owners=["a"]
    )
    with pytest.raises(InputError, match="do not belong together"):
        AllocationTrace.load(tmp_path / "short.npz")
