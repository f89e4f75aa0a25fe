"""Open-loop replay: requests are due on the trace's schedule, whatever the engine does, and latency counts from when each was due.

`replay_inline` spins to each due time in the calling thread: a hop to another process would swamp a call of 200 ns. `replay_submit` sends
tasks from timers of the event loop that answers them, which sleeps in between as it does in service. Both write integer timestamps only;
histograms are made afterwards, above this layer.
"""

from __future__ import annotations

import array
import asyncio
import dataclasses
import selectors
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from openinfer.errors import WorkloadError

Nanoseconds = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ReplayTimes:
    """Per request, in ns from the start of the replay: when it was due, when its call began, when its answer was there.

    `lateness_ns` is what the generator adds. Inline, per call: its begin, less when it could have begun (its batch was due, and the call
    before had ended). Through `submit`, per request: its begin, less when it was due, whatever kept the loop.
    """

    intended_ns: Nanoseconds
    start_ns: Nanoseconds
    end_ns: Nanoseconds
    lateness_ns: Nanoseconds

    @property
    def corrected_ns(self) -> Nanoseconds:
        """Due time to answer: what a caller would have waited."""
        return self.end_ns - self.intended_ns

    @property
    def raw_ns(self) -> Nanoseconds:
        """Begin of the call to answer: blind to what the call before delayed."""
        return self.end_ns - self.start_ns


def replay_inline(
    arrival_s: npt.NDArray[np.float64],
    serve: Callable[[int, int], object],
    *,
    max_batch: int = 1,
    max_delay_us: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> ReplayTimes:
    """Call `serve(first, count)` for requests first … first + count - 1, each batch when it is due.

    A batch holds at most `max_batch` requests. It starts once it is full, or once its oldest request has waited `max_delay_us`;
    with 0, as soon as the engine is free, with whatever has arrived by then.
    """
    requests = len(arrival_s)
    due = np.round(np.asarray(arrival_s) * 1e9).astype(np.int64)
    schedule = due.tolist()
    # Arrays of words, all touched now: lists would keep an object for every number, and a replay's memory would grow as it goes.
    starts, ends = array.array("q", [0]) * requests, array.array("q", [0]) * requests
    delay = max_delay_us * 1000
    origin = clock()
    first = 0
    while first < requests:
        last = min(first + max_batch, requests) - 1
        # The batch may start when it is full, or when its oldest request has waited long enough.
        begin = min(schedule[last], schedule[first] + delay)
        now = clock() - origin
        while now < begin:
            now = clock() - origin
        count = 1
        while first + count <= last and schedule[first + count] <= now:
            count += 1
        serve(first, count)
        end = clock() - origin
        for index in range(first, first + count):
            starts[index], ends[index] = now, end
        first += count
    begun, ended = np.array(starts, np.int64), np.array(ends, np.int64)
    return ReplayTimes(due, begun, ended, _lateness(due, begun, ended, max_batch, delay))


async def replay_submit(
    arrival_s: npt.NDArray[np.float64] | None,
    count: int,
    submit: Callable[[int], Awaitable[Any]],
    *,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[ReplayTimes, list[Any]]:
    """Await `submit(0)` … `submit(count - 1)`, each in a task of its own that starts when it is due; the times, and what was returned.

    Without `arrival_s` each request is sent once the one before is answered. `WorkloadError` where one raises, once all have ended.
    """
    starts, ends = [0] * count, [0] * count
    answers: list[Any] = [None] * count
    origin = clock()

    failed: list[BaseException] = []
    running: dict[int, asyncio.Task[None]] = {}  # those that have ended are let go: the collector would walk them
    ended, sent = asyncio.Event(), 0

    async def one(index: int) -> None:
        starts[index] = clock() - origin
        try:
            answers[index] = await submit(index)
        except Exception as error:
            failed.append(error)
        ends[index] = clock() - origin
        running.pop(index, None)
        if not running and sent == count:
            ended.set()

    if arrival_s is None:
        for index in range(count):
            await one(index)
        begun = np.array(starts, np.int64)
        _check_answered(failed, count)
        return ReplayTimes(begun, begun, np.array(ends, np.int64), np.zeros(count, np.int64)), answers

    loop = asyncio.get_running_loop()
    due = np.round(np.asarray(arrival_s) * 1e9).astype(np.int64)
    schedule = due.tolist()

    def send() -> None:
        nonlocal sent
        now = clock() - origin
        while sent < count and schedule[sent] <= now:
            running[sent] = loop.create_task(one(sent))
            sent += 1
        if sent < count:
            loop.call_later(max(0, schedule[sent] - (clock() - origin)) / 1e9, send)

    send()
    await ended.wait()
    _check_answered(failed, count)
    begun = np.array(starts, np.int64)
    return ReplayTimes(due, begun, np.array(ends, np.int64), begun - due), answers


def _check_answered(failed: Sequence[BaseException], count: int) -> None:
    if failed:
        raise WorkloadError(f"{len(failed)} of {count} requests got no answer; the first: {failed[0]}")


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop whose timers are as fine as the kernel's; those of the usual one are rounded up to whole milliseconds by epoll."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def _lateness(due: Nanoseconds, begun: Nanoseconds, ended: Nanoseconds, max_batch: int, delay: int) -> Nanoseconds:
    """Of the calls of an inline replay."""
    first = np.flatnonzero(np.diff(begun, prepend=-1))
    last = np.minimum(first + max_batch, len(begun)) - 1
    ready = np.minimum(due[last], due[first] + delay)
    free = np.concatenate([[0], ended[first[1:] - 1]])
    late: Nanoseconds = begun[first] - np.maximum(ready, free)
    return late
