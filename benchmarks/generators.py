"""Where the requests of a scheduler's replay should come from: timers of the loop itself, a loop that turns until each is due, or a
process of its own that sends through a pipe. One engine serves the same traffic from each, in mirrored rounds.

    python benchmarks/generators.py [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from openinfer.workloads import registry
from openinfer.workloads.recommendation.traffic import generate
from openinfer.workloads.replay import ReplayTimes, precise_loop, replay_submit

import openinfer

clock = time.perf_counter_ns
Submit = Callable[[int], Awaitable[Any]]

REQUESTS = 2_000
SENDER = """
import os, struct, sys, time
due = [int(line) for line in sys.stdin.readline().split()]
pipe = int(sys.argv[1])
sent = []
for index, at in enumerate(due):
    left = at - time.perf_counter_ns()
    if left > 0:
        time.sleep(left / 1e9)
    os.write(pipe, struct.pack("i", index))
    sent.append(time.perf_counter_ns() - at)
print(*sent)
"""


async def by_turning(arrival_s: Any, submit: Submit) -> ReplayTimes:
    """The loop turns until each request is due."""
    due = np.round(arrival_s * 1e9).astype(np.int64)
    starts, ends = np.zeros(len(due), np.int64), np.zeros(len(due), np.int64)
    origin = clock()

    async def one(index: int) -> None:
        starts[index] = clock() - origin
        await submit(index)
        ends[index] = clock() - origin

    tasks = []
    for index, at in enumerate(due.tolist()):
        while clock() - origin < at:
            await asyncio.sleep(0)
        tasks.append(asyncio.ensure_future(one(index)))
    await asyncio.gather(*tasks)
    return ReplayTimes(due, starts, ends, starts - due)


async def by_process(arrival_s: Any, submit: Submit) -> ReplayTimes:
    """Another process writes each request's number to a pipe."""
    due = np.round(arrival_s * 1e9).astype(np.int64)
    starts, ends = np.zeros(len(due), np.int64), np.zeros(len(due), np.int64)
    origin = clock() + 500_000_000  # the process has started by then
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    sender = subprocess.Popen(
        [sys.executable, "-c", SENDER, str(writer)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(writer,), text=True
    )
    os.close(writer)
    assert sender.stdin is not None and sender.stdout is not None
    sender.stdin.write(" ".join(str(origin + at) for at in due.tolist()) + "\n")
    sender.stdin.flush()
    tasks: list[asyncio.Task[None]] = []
    received, loop = asyncio.Event(), asyncio.get_running_loop()

    async def one(index: int) -> None:
        starts[index] = clock() - origin
        await submit(index)
        ends[index] = clock() - origin

    def receive() -> None:
        for index in np.frombuffer(os.read(reader, 4096), np.int32).tolist():
            tasks.append(loop.create_task(one(index)))
        if len(tasks) == len(due):
            received.set()

    loop.add_reader(reader, receive)
    await received.wait()
    loop.remove_reader(reader)
    os.close(reader)
    await asyncio.gather(*tasks)
    lateness = np.array(sender.stdout.readline().split(), np.int64)
    sender.communicate()
    return ReplayTimes(due, starts, ends, lateness)


async def by_timers(arrival_s: Any, submit: Submit) -> ReplayTimes:
    """What studies use."""
    return (await replay_submit(arrival_s, len(arrival_s), submit))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    found = registry.get("recommendation")
    arms = {"timers": (by_timers, precise_loop), "turning": (by_turning, None), "process": (by_process, None)}
    results: dict[str, list[list[float]]] = {name: [] for name in arms}
    seed = int(np.random.default_rng().integers(2**31))
    trace = generate("day", REQUESTS, seed, blocking=0.0)
    requests = [trace.request(index) for index in range(len(trace))]
    with openinfer.load(found.model_path(), found.base) as engine:
        for number in range(-1, rounds):
            for name in list(arms) if number % 2 else reversed(list(arms)):
                replay, factory = arms[name]
                with asyncio.Runner(loop_factory=factory) as runner:
                    spent = time.thread_time_ns()
                    times = runner.run(replay(trace.arrival_s + 1e-3, lambda index: engine.submit(requests[index])))
                    used = (time.thread_time_ns() - spent) / len(trace)
                if number >= 0:
                    figures = np.percentile(times.lateness_ns, [50, 99]), np.percentile(times.corrected_ns, [50, 99])
                    results[name].append([*figures[0], *figures[1], float(np.median(times.raw_ns)), used])
    print(f"seed {seed}, {rounds} rounds of {REQUESTS} requests, medians over the rounds, µs")
    for name, rows in results.items():
        late50, late99, p50, p99, raw, used = np.median(rows, axis=0) / 1e3
        print(
            f"{name}: generator late by p50 {late50:.0f}, p99 {late99:.0f}; due to answer p50 {p50:.0f}, p99 {p99:.0f}; "
            f"sent to answer p50 {raw:.0f}; the loop's thread used {used:.0f} a request"
        )


if __name__ == "__main__":
    main()
