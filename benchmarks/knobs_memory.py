"""What the knobs of the memory pool and of the planner change. No clock: a recorded trace is replayed, and every run finds the same."""

from __future__ import annotations

import heapq
import itertools
from typing import Any

import memory_soak
import numpy as np

from openinfer.config import Config
from openinfer.memory.controller import Policy
from openinfer.memory.planner import Lifetime, plan
from openinfer.memory.pool import Pool
from openinfer.memory.region import UnmappedRegion
from openinfer.memory.trace import AllocationTrace, Recorder, replay

HOURS = 2
MB = 1 << 20


def recorded() -> AllocationTrace:
    """The first two hours of the soak's traffic, without stampedes, as an unlimited pool sees it."""
    now, recorder = 0.0, Recorder()
    pool = Pool(Policy(), clock=lambda: now, new_region=UnmappedRegion, record=recorder)
    leaving: list[tuple[float, int, Any]] = []
    arrivals = itertools.takewhile(lambda event: event[0] < HOURS * memory_soak.HOUR, memory_soak.traffic(1_000_000, False, 0))
    for number, (start, end, _, size) in enumerate(arrivals):
        while leaving and leaving[0][0] <= start:
            now, _, lease = heapq.heappop(leaving)
            lease.release()
        now = start
        heapq.heappush(leaving, (end, number, pool.lease(size, "request")))
    return recorder.trace()


def lifetimes(buffers: int, seed: int = 0) -> list[Lifetime]:
    """Buffers of random sizes that live through random stretches of 60 steps: hard to place."""
    draw = np.random.default_rng(seed)
    first = draw.integers(0, 60, buffers)
    last = np.minimum(first + draw.integers(1, 20, buffers), 60)
    sizes = draw.integers(1, 64, buffers) * 4096
    return [Lifetime(f"b{k}", int(sizes[k]), int(first[k]), int(last[k])) for k in range(buffers)]


def report() -> None:
    """A line a knob."""
    trace = recorded()

    def of(**knobs: Any) -> Policy:
        return Policy.of(Config.parse({"memory": knobs}).memory, 64)

    base = replay(trace, of())
    print(f"memory: {base.statistics.leases:,} leases of {HOURS} h; held {base.mean_held_bytes / MB:.1f} MB on average:")
    for knobs, text in (({"idle_s": 600.0}, "idle_s 600 instead of 10"), ({"controller": False}, "controller off")):
        other = replay(trace, of(**knobs))
        held = other.mean_held_bytes / base.mean_held_bytes
        print(f"  {text}: held {held:.2f}×, misses {base.statistics.miss_rate:.2%} → {other.statistics.miss_rate:.2%}")
    coarse = replay(trace, of(size_growth=1.5))
    print(f"  size_growth 1.5 instead of 1.125: blocks on lease {coarse.mean_leased_bytes / base.mean_leased_bytes:.2f}× as large")
    tight = replay(trace, of(budget_bytes=40 * MB))
    most, least = (one.statistics.high_water_bytes / MB for one in (base, tight))
    print(f"  budget_bytes 40 MB instead of none: {tight.refused:,} leases refused, most held {most:.1f} → {least:.1f} MB")
    full, none = (
        np.mean([plan(lifetimes(80, seed), effort=effort).gap for seed in range(10)]) for effort in (Config().memory.plan_effort, 0)
    )
    print(f"  plan_effort 0 instead of 1,000,000: arena ÷ live bytes {full:.3f} → {none:.3f} on average over 10 graphs of 80 buffers")


if __name__ == "__main__":
    report()
