"""What the scheduler promises, measured.

    python benchmarks/scheduler.py [latency saturation blocking crossing overload recording deadlock] [--rounds N] [--seconds S]

Arms that are compared run interleaved, in mirrored order; ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.workloads import registry
from scheduler_arms import FEATURES, FeatureStore, Load, clients, dense, look_ups, thread_per_request

import openinfer
from openinfer.errors import DeadlineError, LockOrderError, OverloadError
from openinfer.scheduler.ordered_lock import LockOrder, OrderedLock

clock = time.perf_counter_ns

Served = tuple[openinfer.Engine, asyncio.Runner]

SMALL, MIDDLE, LARGE = (FEATURES, 64, 3), (FEATURES, 640, 128, 640, FEATURES), (FEATURES, 1536, 1536, 10)
HUGE = (FEATURES, 3072, 3072, 10)
IN_FLIGHT = 64


def loaded(model: Any, **knobs: Any) -> openinfer.Engine:
    return openinfer.load(model, {"scheduler": knobs})


def drawn(count: int, width: int = FEATURES) -> list[Any]:
    rows = np.random.default_rng().standard_normal((count, 1, width)).astype(np.float32)
    return list(rows)


def mirrored(arms: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Each arm's results, one a round; every second round runs in reverse."""
    results: dict[str, list[Any]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms) if number % 2 == 0 else reversed(list(arms)):
            results[name].append(arms[name]())
    return results


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    ratios = sorted(a / b for a, b in zip(over, under, strict=True))
    return f"{statistics.median(ratios):.2f}× (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})"


def latency() -> None:
    """`submit` beside `run`: one request a millisecond, taking turns, and back to back."""
    hft = registry.get("hft")
    model = hft.model_path(next(name for name in hft.models if "mlp" in name))
    for knobs in ({}, {"max_batch": 16}):
        engine = loaded(model, **knobs)
        rows = drawn(1000, int((engine.inputs[0].shape or ())[1]))
        cold, hot = asyncio.run(_latencies(engine, rows))
        print(f"tick MLP, {knobs or 'defaults'}, p50 in µs:", end=" ")
        for label, (submitted, ran) in (("after 1 ms of idling", cold), ("back to back", hot)):
            print(f"{label} submit {submitted:.2f}, run {ran:.2f}, over it {submitted - ran:.2f};", end=" ")
        print()
        engine.close()


async def _latencies(engine: openinfer.Engine, rows: list[Any]) -> list[tuple[float, float]]:
    """(submit, run), each as p50 in µs: after idling, and back to back."""
    name = engine.inputs[0].name
    found = []
    for pause in (0.001, 0.0):
        times: dict[bool, list[int]] = {True: [], False: []}
        for index, row in enumerate(rows):
            inputs = {name: row}
            await asyncio.sleep(pause)
            submits = index % 2 == 0
            begin = clock()
            if submits:
                await engine.submit(inputs)
            else:
                engine.run(inputs)
            times[submits].append(clock() - begin)
        found.append((float(np.median(times[True])) / 1e3, float(np.median(times[False])) / 1e3))
    return found


def saturation(rounds: int) -> None:
    """64 clients: `submit` beside a thread per request."""
    for name, widths, count in (("small", SMALL, 4000), ("middle", MIDDLE, 3000), ("large", LARGE, 600)):
        _saturate(name, dense(widths), drawn(count), rounds)


def _saturate(name: str, model: Any, rows: list[Any], rounds: int) -> None:
    threads = loaded(model)
    alone = min(_timed(lambda row=row: threads.run({"x": row})) for row in rows[:200])
    arms: dict[str, Callable[[], Any]] = {"threads": lambda: thread_per_request(threads, rows, IN_FLIGHT, alone)}
    engines = {f"submit, max_batch {most}": loaded(model, max_batch=most) for most in (1, 16)}
    for label, engine in engines.items():
        arms[label] = lambda engine=engine: asyncio.run(clients(engine, rows, IN_FLIGHT))
    for arm in arms.values():
        arm()
    results = mirrored(arms, rounds)
    base = results["threads"]
    waited = _median(base, "wait_ns") / 1e6
    print(f"{name}, a call takes {alone / 1e3:.1f} µs: a thread per request {_median(base, 'per_s'):.0f}/s, wait {waited:.1f} ms")
    for label in engines:
        faster = ratio([load.per_s for load in results[label]], [load.per_s for load in base])
        waits = ratio([load.wait_ns for load in results[label]], [load.wait_ns for load in base])
        cheaper = ratio([load.cpu_ns for load in base], [load.cpu_ns for load in results[label]])
        print(f"  {label}: {_median(results[label], 'per_s'):.0f}/s, throughput {faster}, wait {waits},")
        print(f"    requests for the same processor time {cheaper}")
    for engine in (threads, *engines.values()):
        engine.close()


def blocking(rounds: int) -> None:
    """40% and none of the tasks begin with a look-up in SQLite, of a store larger than memory and of one that is in memory."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for label, missing, share, count in (
            ("a store larger than memory", 1.0, 0.4, 1500),
            ("a store in memory", 0.0, 0.4, 4000),
            ("no store", 0.0, 0.0, 20000),
        ):
            with contextlib.closing(FeatureStore(Path(folder), missing)) as store, _served("async", "hybrid", "auto") as served:
                used, waited = store.parts()
                results = mirrored(_look_up_arms(served, store.look_up, drawn(count), share), rounds)
            base = results["async"]
            print(f"{label}: a look-up computes {used / 1e3:.0f} µs and waits {waited / 1e3:.0f} µs; {share:.0%} of the tasks have one")
            for mode in ("hybrid", "auto"):
                faster = ratio([load.per_s for load in results[mode]], [load.per_s for load in base])
                dearer = ratio([load.cpu_ns for load in results[mode]], [load.cpu_ns for load in base])
                print(f"  {mode} ÷ async: throughput {faster}, processor time a request {dearer}")
            print("  " + ", ".join(f"{mode} {_median(loads, 'per_s'):.0f}/s" for mode, loads in results.items()), flush=True)


def crossing(rounds: int) -> None:
    """Where hybrid passes async: over the share of tasks with a look-up, and over the part of a look-up that is waiting."""
    with tempfile.TemporaryDirectory(dir=".") as folder, _served("async", "hybrid") as served:

        def measured(missing: float, share: float, count: int) -> tuple[list[float], float]:
            with contextlib.closing(FeatureStore(Path(folder), missing)) as store:
                used, waited = store.parts()
                results = mirrored(_look_up_arms(served, store.look_up, drawn(count), share), rounds)
            ratios = [a.per_s / b.per_s for a, b in zip(results["hybrid"], results["async"], strict=True)]
            part = waited / (used + waited)
            print(f"  {share:.0%} of the tasks, a look-up waits {part:.0%} of its {(used + waited) / 1e3:.0f} µs:", end=" ")
            print(f"hybrid ÷ async {statistics.median(ratios):.2f}× ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
            return ratios, part

        for label, missing in (("a store larger than memory", 1.0), ("a store in memory", 0.0)):
            print(label)
            shares = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
            points = [(share, measured(missing, share, 4000 if missing == 0.0 else 1500)[0]) for share in shares]
            print(f"  hybrid passes async at {_crossing(points)} of the tasks")
        print("stores that are partly in memory")
        mixed = []
        for missing in (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
            ratios, part = measured(missing, 0.4, 3000)
            mixed.append((part, ratios))
        print(f"  hybrid passes async where a look-up waits {_crossing(sorted(mixed))} of its time")


def overload(seconds: float) -> None:
    """Poisson arrivals at three times the capacity; a deadline from when each request was due. At last with `engine.gc = "freeze"`."""
    for collection in ("default", "freeze"):
        for allowed_ms in (50, 250):
            for widths in (LARGE, HUGE):
                _overload(seconds, allowed_ms, widths, collection)


def _overload(seconds: float, allowed_ms: int, widths: Sequence[int], collection: str) -> None:
    allowed_ns = allowed_ms * 1_000_000
    engine = openinfer.load(dense(widths), {"scheduler": {"max_batch": 8}, "engine": {"gc": collection}})

    async def measure() -> None:
        rows = drawn(512)
        await clients(engine, drawn(400), IN_FLIGHT)
        capacity = (await clients(engine, drawn(1500), IN_FLIGHT)).per_s
        generator = np.random.default_rng()
        due = np.cumsum(generator.exponential(1 / (3 * capacity), int(3 * capacity * seconds)))
        refused: list[int] = []
        late: list[int] = []
        in_time = missed = 0
        begun, used = clock(), time.thread_time_ns()
        origin = begun + 10_000_000
        tasks: set[asyncio.Task[None]] = set()

        async def one(index: int, at: int) -> None:
            nonlocal in_time, missed
            begin = clock()
            left = at + allowed_ns - begin
            try:
                await engine.submit({"x": rows[index % len(rows)]}, deadline=left / 1e9)
            except (OverloadError, DeadlineError) as error:
                if "passed" in str(error) and "while the request waited" in str(error):
                    missed += 1
                else:
                    refused.append(clock() - begin)
                return
            end = clock() - at
            if end <= allowed_ns:
                in_time += 1
            else:
                late.append(end - allowed_ns)

        for index, at in enumerate((due * 1e9).astype(np.int64).tolist()):
            while (ahead := origin + at - clock()) > 0:
                await asyncio.sleep(ahead / 1e9)
            if not index % 32:
                await asyncio.sleep(0)  # a server that is behind reads its sockets turn by turn, too
            task = asyncio.ensure_future(one(index, origin + at))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        busy = (time.thread_time_ns() - used) / (clock() - begun)
        accepted = in_time + missed + len(late)
        offered = len(due) / due[-1]
        taken = accepted / due[-1] / capacity
        print(
            f"widths {widths[1]}, gc {collection}, deadline {allowed_ms} ms: capacity {capacity:.0f}/s, offered {offered:.0f}/s,", end=" "
        )
        print(f"accepted {accepted}, {taken:.2f} of it, the loop busy {busy:.0%}:")
        print(f"  in time {in_time / max(accepted, 1):.4%} ({missed} missed in the queue, {len(late)} answered late)")
        if refused:
            p50, p99 = np.percentile(refused, [50, 99]) / 1e3
            waits = engine.statistics().scheduler[0]["waits"]
            stages = ("queue_ns", "handoff_ns", "gil_ns", "kernel_ns", "total_ns")
            print("  p50 and p99 in ms:", ", ".join(f"{s[:-3]} {waits[s]['p50'] / 1e6:.2f} {waits[s]['p99'] / 1e6:.2f}" for s in stages))
            print(f"  refused {len(refused)}: p50 {p50:.1f} µs, p99 {p99:.1f} µs, largest {max(refused) / 1e3:.0f} µs")

    asyncio.run(measure())
    engine.close()


def recording(rounds: int) -> None:
    """What the record of each request costs, requests alone and joined: processor time with and without."""
    model = dense(MIDDLE)
    rows = drawn(2000)
    for most in (1, 16):
        engines = {name: loaded(model, max_batch=most, record=name == "on") for name in ("on", "off")}
        arms = {name: lambda engine=engine: asyncio.run(clients(engine, rows, IN_FLIGHT)).cpu_ns for name, engine in engines.items()}
        for arm in arms.values():
            arm()
        results = mirrored(arms, rounds)
        print(f"max_batch {most}: processor time a request with the record ÷ without {ratio(results['on'], results['off'])}")
        for engine in engines.values():
            engine.close()


def deadlock() -> None:
    """Two threads take A and B in opposite orders, one after the other: the second order is named although nobody waits."""
    order = LockOrder()
    a, b = OrderedLock("A", order), OrderedLock("B", order)

    def forwards() -> None:
        with a, b:
            pass

    thread = threading.Thread(target=forwards, name="forwards")
    thread.start()
    thread.join()
    try:
        with b, a:
            print("not named")
    except LockOrderError as error:
        print(f"named before it bites: {error}")


def _look_up_arms(served: dict[str, Served], look_up: Callable[[int], Any], rows: list[Any], share: float) -> dict[str, Callable[[], Load]]:
    seed = int(np.random.default_rng().integers(2**31))

    def arm(engine: openinfer.Engine, runner: asyncio.Runner) -> Load:
        return runner.run(look_ups(engine, look_up, rows, share, IN_FLIGHT, seed))

    arms = {mode: functools.partial(arm, *pair) for mode, pair in served.items()}
    for each in arms.values():
        each()
    return arms


@contextlib.contextmanager
def _served(*modes: str) -> Iterator[dict[str, Served]]:
    """An engine for each mode, with a loop of its own that goes on from round to round."""
    with contextlib.ExitStack() as stack:
        served = {}
        for mode in modes:
            runner = stack.enter_context(asyncio.Runner())
            engine = loaded(dense(MIDDLE), mode=mode, max_batch=16, blocking_timeout_ms=60_000)
            stack.callback(lambda runner=runner, engine=engine: runner.run(engine.aclose()))
            served[mode] = engine, runner
        yield served


def _crossing(points: Sequence[tuple[float, list[float]]]) -> str:
    """Where the median ratio passes 1 for the first time and for good, with a 95% interval from rounds drawn again."""
    draw = np.random.default_rng()

    def at(medians: Sequence[float]) -> float:
        """Between two points, linearly; 0 or infinity where it never passes."""
        behind = [index for index, median in enumerate(medians) if median < 1]
        if not behind or behind[-1] == len(medians) - 1:
            return 0.0 if not behind else float("inf")
        last = behind[-1]
        (low, _), (high, _) = points[last], points[last + 1]
        return low + (high - low) * (1 - medians[last]) / (medians[last + 1] - medians[last])

    found = at([statistics.median(ratios) for _, ratios in points])
    again = sorted(at([float(np.median(draw.choice(ratios, len(ratios)))) for _, ratios in points]) for _ in range(2000))
    low, high = again[50], again[-51]

    def text(share: float) -> str:
        return "no share" if share == float("inf") else f"{share:.1%}"

    return f"{text(found)} (95% interval {text(low)} to {text(high)})"


def _timed(call: Callable[[], object]) -> int:
    begin = clock()
    call()
    return clock() - begin


def _median(loads: list[Any], field: str) -> float:
    return statistics.median(getattr(load, field) for load in loads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", default=["latency", "saturation", "blocking", "crossing", "overload", "recording", "deadlock"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "latency": latency,
        "saturation": lambda: saturation(options.rounds),
        "blocking": lambda: blocking(options.rounds),
        "crossing": lambda: crossing(options.rounds),
        "overload": lambda: overload(options.seconds),
        "recording": lambda: recording(options.rounds),
        "deadlock": deadlock,
    }
    for part in options.part:
        print(f"--- {part}", flush=True)
        parts[part]()


if __name__ == "__main__":
    main()
