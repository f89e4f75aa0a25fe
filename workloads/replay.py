"""Open-loop replay: requests are due on the trace's schedule, whatever the engine does, and latency counts from when each was due.

The inline form spins to each due time in the calling thread: a hop to another process would swamp a call of 200 ns. It writes integer
timestamps only; histograms are made afterwards, above this layer.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Nanoseconds = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ReplayTimes:
    """Per request, in ns from the start of the replay: when it was due, when its call began, when its answer was there."""

    intended_ns: Nanoseconds
    start_ns: Nanoseconds
    end_ns: Nanoseconds
    batch: npt.NDArray[np.int64]
    max_batch: int
    max_delay_ns: int

    @property
    def lateness_ns(self) -> Nanoseconds:
        """Per call: its begin, less when it could have begun (its batch was due, and the call before had ended). The generator's own
        fault.
        """
        first = np.flatnonzero(np.diff(self.start_ns, prepend=-1))
        last = np.minimum(first + self.max_batch, len(self.start_ns)) - 1
        due = np.minimum(self.intended_ns[last], self.intended_ns[first] + self.max_delay_ns)
        free = np.concatenate([[0], self.end_ns[first[1:] - 1]])
        late: Nanoseconds = self.start_ns[first] - np.maximum(due, free)
        return late

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
    starts, ends, sizes = [0] * requests, [0] * requests, [0] * requests
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
            starts[index], ends[index], sizes[index] = now, end, count
        first += count
    return ReplayTimes(due, np.array(starts, np.int64), np.array(ends, np.int64), np.array(sizes, np.int64), max_batch, delay)
