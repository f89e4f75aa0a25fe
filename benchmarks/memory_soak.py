"""A compressed 72 h of mixed shapes, bursts and sessions in a budget of 512 MB. `python benchmarks/memory_soak.py [--requests N]`

The clock is simulated, the memory real: every lease is touched, and the process's resident bytes are read once a simulated minute. One
process each: the pool and the pool without its controller, with stampedes that ask for more than the budget; and, without stampedes so
that all serve the same requests, the pool, a buffer kept for every shape and call at once, and NumPy's allocation per request.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from openinfer.errors import MemoryBudgetError
from openinfer.memory.controller import Policy
from openinfer.memory.pool import Pool

HOURS, HOUR = 72, 3600.0
BUDGET = 512 << 20
SHAPES, SESSIONS = 64, 120
WAYS = ("pool", "controller off", "kept per shape", "NumPy")
RUNS = (("pool", True), ("controller off", True), ("pool", False), ("kept per shape", False), ("NumPy", False))  # way, stampedes

Take = Callable[[int, int], Callable[[], None]]  # (shape, bytes) → what gives it back


@dataclasses.dataclass
class Outcome:
    """What one process saw. Bytes; hourly means of the resident bytes above the start; fragmentation by minute."""

    way: str
    stampedes: bool
    requests: int
    refused: int
    wrong_after_refusal: int
    seconds: float
    peak_bytes: int
    hourly_bytes: list[float]
    external: list[float]
    final: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2_050_000)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--stampedes", action="store_true", help="for a single --way")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(dataclasses.asdict(soak(arguments.way, arguments.stampedes, arguments.requests, arguments.seed))))
        return
    print(f"seed {arguments.seed}")
    found = []
    for way, stampedes in RUNS:
        command = [sys.executable, __file__, "--way", way, "--requests", str(arguments.requests), "--seed", str(arguments.seed)]
        command += ["--stampedes"] * stampedes
        found.append(Outcome(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)))
        print(describe(found[-1]), flush=True)
    calm = {outcome.way: outcome for outcome in found if not outcome.stampedes}
    pooled = calm.pop("pool")
    for way, other in calm.items():
        saved, faster = 100 * (1 - pooled.peak_bytes / other.peak_bytes), other.seconds / pooled.seconds
        print(f"the pool against {way!r}, the same requests: {saved:+.1f}% of the peak saved, {faster:.2f}× as fast")


def describe(o: Outcome) -> str:
    """The lines of one way."""
    slope, low, high = resident_slope(np.array(o.hourly_bytes))
    flat = "indistinguishable from zero" if low <= 0 <= high else "NOT zero"
    lines = [
        f"{o.way}, {'with' if o.stampedes else 'without'} stampedes: {o.requests:,} requests over {HOURS} h in {o.seconds:.0f} s; "
        f"{o.refused} refused at the budget, {o.wrong_after_refusal} of the requests after a refusal that had room failed",
        f"  resident above the start: peak {o.peak_bytes / 2**20:.1f} MB; slope {slope / 2**10:+.2f} KB/h "
        f"(95%: {low / 2**10:+.2f} to {high / 2**10:+.2f}), {flat}",
    ]
    if o.external:
        external = np.array(o.external)
        lines.append(
            f"  external fragmentation: {100 * external[-1]:.2f}% at the end, mean {100 * external.mean():.2f}%, "
            f"99% of minutes below {100 * np.quantile(external, 0.99):.1f}%; internal "
            f"{100 * o.final['internal_fragmentation']:.1f}%, resident {100 * o.final['resident_fragmentation']:.1f}%; "
            f"misses {100 * o.final['miss_rate']:.2f}% of {o.final['leases']:,} leases"
        )
    return "\n".join(lines)


def resident_slope(hourly: Any, skip: int = 24) -> tuple[float, float, float]:
    """Bytes per hour with a 95% interval: least squares on hourly means after `skip` hours beside a daily wave, with Newey–West errors
    (four hours), because what is resident in one hour depends on the hour before.
    """
    y = hourly[skip:]
    t = np.arange(len(y), dtype=float)
    x = np.stack([np.ones_like(t), t, np.sin(2 * np.pi * t / 24), np.cos(2 * np.pi * t / 24)], axis=1)
    inverse = np.linalg.inv(x.T @ x)
    weights = inverse @ x.T @ y
    scores = x * (y - x @ weights)[:, None]
    middle = scores.T @ scores
    for lag in range(1, 5):
        part = scores[lag:].T @ scores[:-lag]
        middle += (1 - lag / 5) * (part + part.T)
    freedom = len(y) - x.shape[1]
    error = np.sqrt((inverse @ middle @ inverse)[1, 1] * len(y) / freedom)
    reach = stats.t.ppf(0.975, freedom) * error
    return float(weights[1]), float(weights[1] - reach), float(weights[1] + reach)


def traffic(requests: int, stampedes: bool, seed: int) -> Iterator[tuple[float, float, int, int]]:
    """(arrival, departure, shape, bytes) in order of arrival, in simulated seconds.

    Three requests in four are spread over the day's wave, one in four comes in bursts of 200 within two seconds. Each hour of the day asks
    for other shapes, and begins 120 sessions that last an hour on average, the same ones: what is asked for has no trend of its own. With
    `stampedes`, every six hours 2,000 requests within a second ask for more than the budget.
    """
    rng = np.random.default_rng(seed)
    sizes = np.exp(rng.uniform(np.log(16 << 10), np.log(2 << 20), SHAPES)).astype(int)
    popularity = 1.0 / np.arange(1, SHAPES + 1)
    ranks = [rng.permutation(SHAPES) for _ in range(24)]
    lasting = -HOUR * np.log(1 - (np.arange(SESSIONS) + 0.5) / SESSIONS)
    sessions = [rng.integers(0, SHAPES, SESSIONS) for _ in range(24)]
    for hour in range(HOURS):
        wave = 1 + 0.6 * np.sin(2 * np.pi * hour / 24)
        spread = int(requests * 0.75 * wave / HOURS)
        bursts = max(1, int(requests * 0.25 * wave / HOURS / 200))
        arrivals = [rng.uniform(0, HOUR, spread), (rng.uniform(0, HOUR - 4, bursts)[:, None] + rng.uniform(0, 2, (bursts, 200))).ravel()]
        if stampedes and hour % 6 == 3:
            arrivals.append(rng.uniform(0, HOUR - 4) + rng.uniform(0, 1, 2000))
        starts = np.concatenate(arrivals)
        shapes = ranks[hour % 24][rng.choice(SHAPES, len(starts), p=popularity / popularity.sum())]
        ends = starts + rng.exponential(0.15, len(starts))
        ends[spread + 200 * bursts :] += 1.0
        opened = rng.uniform(0, HOUR, SESSIONS)
        starts, ends = np.concatenate([starts, opened]), np.concatenate([ends, opened + lasting])
        shapes = np.concatenate([shapes, sessions[hour % 24]])
        order = np.argsort(starts, kind="stable")
        columns = (hour * HOUR + starts[order], hour * HOUR + ends[order], shapes[order], sizes[shapes[order]])
        yield from zip(*(column.tolist() for column in columns), strict=True)


def soak(way: str, stampedes: bool, requests: int, seed: int) -> Outcome:
    """Run the traffic through one way of allocating."""
    now = 0.0
    pool = Pool(Policy(budget_bytes=BUDGET, controller=way == "pool"), clock=lambda: now) if way in WAYS[:2] else None
    take = _from_pool(pool) if pool is not None else _kept() if way == "kept per shape" else _numpy()
    base = resident_bytes()
    peak = refused = wrong = served = number = 0
    minutes, external = np.zeros(HOURS * 60, np.int64), np.zeros(HOURS * 60)  # beforehand: what is measured must not grow by being measured
    passed = 0
    leaving: list[tuple[float, int, Callable[[], None]]] = []
    minute, begin = 60.0, time.perf_counter()
    for start, end, shape, size in traffic(requests, stampedes, seed):
        while minute <= start:
            _leave(leaving, minute)
            now = minute
            minutes[passed] = resident_bytes() - base
            if pool is not None:
                pool.step()
                external[passed] = pool.external_fragmentation
            minute += 60.0
            passed += 1
        _leave(leaving, start)
        now = start
        served += 1
        try:
            give_back = take(shape, size)
        except MemoryBudgetError:
            refused += 1
            assert pool is not None
            wrong += pool.leased_bytes + 2 * size < BUDGET  # there was room for it
            continue
        number += 1
        heapq.heappush(leaving, (end, number, give_back))
        if served % 16 == 0:
            peak = max(peak, resident_bytes() - base)
    final = dataclasses.asdict(pool.statistics()) if pool is not None else {}
    final.pop("decisions", None)
    hourly = minutes[: passed // 60 * 60].reshape(-1, 60).mean(axis=1).tolist()
    seen = external[:passed].tolist() if pool is not None else []
    return Outcome(way, stampedes, served, refused, wrong, time.perf_counter() - begin, max(peak, int(minutes.max())), hourly, seen, final)


def _leave(leaving: list[tuple[float, int, Callable[[], None]]], until: float) -> None:
    while leaving and leaving[0][0] <= until:
        heapq.heappop(leaving)[2]()


def _from_pool(pool: Pool) -> Take:
    def take(shape: int, size: int) -> Callable[[], None]:
        lease = pool.lease(size, "request")
        lease.array[::4096] = 1
        return lease.release

    return take


def _kept() -> Take:
    """A buffer for every shape and call at once, never given back: what steady calls without allocation cost without a pool."""
    free: dict[int, list[Any]] = {}

    def take(shape: int, size: int) -> Callable[[], None]:
        idle = free.setdefault(shape, [])
        buffer = idle.pop() if idle else np.empty(size, np.uint8)
        buffer[::4096] = 1
        return lambda: idle.append(buffer)

    return take


def _numpy() -> Take:
    def take(shape: int, size: int) -> Callable[[], None]:
        held = [np.empty(size, np.uint8)]
        held[0][::4096] = 1
        return held.clear

    return take


def resident_bytes() -> int:
    """Of this process, from Linux's /proc."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
