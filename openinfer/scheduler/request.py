"""A request in the queue, and the order that requests are served in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openinfer.scheduler.lane import Shape

NEVER = 1 << 62  # the due time of a request without a deadline, in ns

Key = tuple[int, int, int]


def key_of(priority: int, due_ns: int, number: int) -> Key:
    """Higher priority first, then the earliest deadline, then first come, first served."""
    return -priority, due_ns, number


class Request:
    """One request. Times in ns on `time.perf_counter_ns`; `arrays` are the model's inputs, checked; `rows` along their first axis."""

    __slots__ = ("arrays", "due_ns", "enqueued_ns", "future", "key", "lane", "predicted_ns", "rows", "shape", "waiting")

    def __init__(self, arrays: dict[str, Any], shape: Shape, key: Key, enqueued_ns: int, future: asyncio.Future[Any]) -> None:
        self.arrays, self.shape, self.key, self.enqueued_ns, self.future = arrays, shape, key, enqueued_ns, future
        self.due_ns = key[1]
        self.lane, self.rows = shape.lane, shape.rows
        self.predicted_ns = 0
        self.waiting = False


def time_left(left_ns: int) -> str:
    """For messages: when a deadline is, or was."""
    return f"the deadline is in {left_ns / 1e6:.2f} ms" if left_ns >= 0 else f"the deadline passed {-left_ns / 1e6:.2f} ms ago"
