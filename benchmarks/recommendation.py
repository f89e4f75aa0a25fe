"""The workload `recommendation` beside its promises.

    python benchmarks/recommendation.py blocking [--rounds N] [--plot FILE.svg]
    python benchmarks/recommendation.py capacity [--against "p99<10ms"]

`blocking`: async, hybrid and a thread per request, by the share of requests that begin with a look-up. `capacity`: requests a second
within the promise. Arms that are compared run interleaved, in mirrored order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.tuner.service import SubmitService
from openinfer.tuner.slo import parse_slos
from openinfer.workloads import registry
from openinfer.workloads.recommendation import traffic
from openinfer.workloads.recommendation.population import USERS
from openinfer.workloads.recommendation.store import FeatureStore

import openinfer

clock = time.perf_counter_ns

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
IN_FLIGHT = 64
A_BILLION_A_DAY = 1e9 / 86_400
CONFIDENCE = 0.95

# Keeps the features fresh: a transaction of 20 users, up to 4 ms long, every 0 to 10 ms. What it writes is what stands there.
WRITER = f"""
import random, sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
print("ready", flush=True)
draw = random.Random(1)
while True:
    store.execute("BEGIN EXCLUSIVE")
    store.executemany("UPDATE activity SET count = count WHERE user = ?", [(draw.randrange({USERS}),) for _ in range(20)])
    time.sleep(draw.uniform(0, 0.004))
    store.execute("COMMIT")
    time.sleep(draw.uniform(0, 0.010))
"""

Request = tuple[Any, Callable[[Any], Any] | None]


@contextlib.contextmanager
def updated(store: FeatureStore) -> Iterator[None]:
    """Meanwhile another process keeps the features fresh."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(store.path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None and writer.stdout.readline()
        yield
    finally:
        writer.kill()
        writer.wait()
        if writer.stdout is not None:
            writer.stdout.close()


def drawn(store: FeatureStore, count: int, share: float) -> list[Request]:
    """Requests as `submit` takes them: (what they carry, their look-up)."""
    trace = traffic.generate("even", count, int(np.random.default_rng().integers(2**31)), share)
    assert trace.look_ups is not None
    found: list[Request] = []
    for index, user in enumerate(trace.look_ups.tolist()):
        inputs = trace.request(index)
        found.append(((user, store.blank(inputs)), store.look_up) if user >= 0 else (inputs, None))
    return found


async def submitted(engine: openinfer.Engine, requests: Sequence[Request]) -> float:
    """Requests a second; `IN_FLIGHT` tasks that each send the next request once their last is answered."""
    feed = iter(requests)
    begin = clock()

    async def client() -> None:
        for inputs, prepare in feed:
            await engine.submit(inputs, prepare=prepare)

    await asyncio.gather(*[client() for _ in range(IN_FLIGHT)])
    return len(requests) / (clock() - begin) * 1e9


def threaded(engine: openinfer.Engine, requests: Sequence[Request]) -> float:
    """Requests a second; a thread for each, `IN_FLIGHT` at a time."""
    free: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in range(IN_FLIGHT):
        free.put(None)

    def serve(inputs: Any, prepare: Callable[[Any], Any] | None) -> None:
        engine.run(inputs if prepare is None else prepare(inputs))
        free.put(None)

    begin = clock()
    for request in requests:
        free.get()
        threading.Thread(target=serve, args=request).start()
    for _ in range(IN_FLIGHT):
        free.get()
    return len(requests) / (clock() - begin) * 1e9


def blocking(rounds: int, plot: str | None) -> None:
    """Throughput of the three by share of requests that begin with a look-up, and where hybrid passes async."""
    found = registry.get("recommendation")
    results: dict[str, Any] = {}
    with contextlib.closing(FeatureStore()) as store, contextlib.ExitStack() as stack:
        arms: dict[str, Callable[[Sequence[Request]], float]] = {}
        for mode in ("async", "hybrid"):
            knobs = {"scheduler.mode": mode, "scheduler.blocking_timeout_ms": 60_000}
            engine, runner = openinfer.load(found.model_path(), found.base.with_knobs(knobs)), stack.enter_context(asyncio.Runner())
            stack.callback(lambda engine=engine, runner=runner: runner.run(engine.aclose()))
            arms[mode] = lambda requests, engine=engine, runner=runner: runner.run(submitted(engine, requests))
        plain = stack.enter_context(openinfer.load(found.model_path()))
        arms["thread per request"] = lambda requests: threaded(plain, requests)
        for label, writer, count in (("nobody writes", contextlib.nullcontext(), 800), ("under a writer", updated(store), 600)):
            with writer:
                results[label] = _by_share(label, store, arms, rounds, count)
    if plot is not None:
        _draw(results, plot)


def _by_share(label: str, store: FeatureStore, arms: dict[str, Callable[[Sequence[Request]], float]], rounds: int, count: int) -> Any:
    """[share, arm, round] requests a second."""
    taken = []
    for (user, carried), look_up in drawn(store, 300, 1.0):
        begin = clock()
        look_up((user, carried))
        taken.append(clock() - begin)
    print(f"{label}: a look-up takes {np.median(taken) / 1e3:.0f} µs, p99 {np.percentile(taken, 99) / 1e3:.0f} µs")
    rates = np.zeros((len(SHARES), len(arms), rounds))
    for row, share in enumerate(SHARES):
        for number in range(-1, rounds):
            requests = drawn(store, count, share)
            for name in list(arms) if number % 2 else reversed(list(arms)):
                rates[row, list(arms).index(name), number] = arms[name](requests)  # the round before the first is overwritten
        print(f"  {share:.0%}: " + ", ".join(f"{name} {np.median(rates[row, k]):.0f}/s" for k, name in enumerate(arms)), flush=True)
    ratio = np.log(rates[:, 1] / rates[:, 0])
    generator = np.random.default_rng(0)
    crossings = sorted(_crossing(np.median(ratio[:, generator.integers(0, rounds, rounds)], axis=1)) for _ in range(1000))
    low, high = (crossings[int(q * 999)] for q in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    print(f"  hybrid passes async at {_said(_crossing(np.median(ratio, axis=1)))}; {CONFIDENCE:.0%} interval {_said(low)} to {_said(high)}")
    return rates


def _crossing(ratio: Any) -> float:
    """The share from which on hybrid stays ahead; infinite where it is behind at the last one."""
    if ratio[-1] < 0:
        return float("inf")
    for k in range(len(SHARES) - 1, 0, -1):
        if ratio[k - 1] < 0:
            return float(SHARES[k - 1] + (SHARES[k] - SHARES[k - 1]) * -ratio[k - 1] / (ratio[k] - ratio[k - 1]))
    return 0.0


def _said(share: float) -> str:
    return "none of the shares" if share == float("inf") else f"{share:.0%}"


def _draw(results: dict[str, Any], path: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4.2 * len(results), 3.4), layout="constrained")
    for panel, (label, rates) in zip(axes, results.items(), strict=True):
        for k, (name, style) in enumerate((("async", "o-"), ("hybrid", "s-"), ("thread per request", "^--"))):
            low, middle, high = np.quantile(rates[:, k], [0.25, 0.5, 0.75], axis=1)
            bars, percent = [middle - low, high - middle], [100 * share for share in SHARES]
            panel.errorbar(percent, middle, bars, fmt=style, markersize=4, capsize=2, label=name)
        panel.axvline(30, color="0.5", linewidth=0.8, linestyle=":")
        panel.set(title=f"SQLite, {label}", xlabel="requests that begin with a look-up, %", ylim=(0, None))
    axes[0].set_ylabel("requests a second; bars: quartiles of rounds")
    axes[-1].legend(fontsize=8)
    figure.savefig(path)
    print(f"wrote {path}; the dotted line is the 30% rule")


def capacity(against: str, step: float) -> None:
    """The largest rate of the day's traffic at which the promise is met by the bound at 99%, and what that means for a billion a day."""
    (slo,) = parse_slos(against)
    found = registry.get("recommendation")
    day = traffic.REGIMES["day"]
    held = 0.0
    for factor in (day.rate * step**k for k in itertools.count(-4)):
        scaled = dataclasses.replace(day, quiet=day.quiet * factor / day.rate, burst=day.burst * factor / day.rate)
        count = int(3 * day.day_s * factor)
        traffic.REGIMES["scaled"] = scaled
        trace = traffic.generate("scaled", count, int(np.random.default_rng().integers(2**31)))
        engine = openinfer.load(found.model_path(), found.base)
        service = SubmitService(engine, trace, {"click": np.empty((trace.row_count, 1))}, 1.0, FeatureStore())
        service.warm_up()
        times = service.replay(0, count)
        service.close()
        check = slo.check(times.corrected_ns, "default", "day", count)
        p50, p99 = np.percentile(times.corrected_ns, [50, 99]) / 1e6
        print(f"{factor:.0f}/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {check.status}", flush=True)
        if check.status != "met":
            break
        held = factor
    if held:
        machines = int(np.ceil(A_BILLION_A_DAY / held))
        print(
            f"{slo.expression} holds up to {held:.0f}/s: {machines} such machines answer a billion requests a day ({A_BILLION_A_DAY:.0f}/s)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["blocking", "capacity"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--plot")
    parser.add_argument("--against", default="p99<10ms")
    parser.add_argument("--step", type=float, default=1.15, help="ratio of neighbouring rates of capacity")
    options = parser.parse_args()
    if options.part == "blocking":
        blocking(options.rounds, None if options.plot is None else str(Path(options.plot)))
    else:
        capacity(options.against, options.step)


if __name__ == "__main__":
    main()
