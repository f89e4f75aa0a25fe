"""A request in the queue, and the order that requests are served in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openinfer.scheduler.lane import Shape

NEVER = 1 << 62  # the due time of a request without a deadline, in ns

Key = tuple[int, int, int]


class Request:
    """One request. Times in ns on `time.perf_counter_ns`; `arrays` are the model's inputs, checked; `rows` along their first axis."""

    __slots__ = ("arrays", "due_ns", "enqueued_ns", "future", "key", "lane", "predicted_ns", "rows", "shape", "waiting")

    def __init__(self, arrays: dict[str, Any], shape: Shape, due_ns: int, priority: int, number: int, future: asyncio.Future[Any]) -> None:
        self.arrays, self.shape, self.due_ns, self.future = arrays, shape, due_ns, future
        self.lane, self.rows = shape.lane, shape.rows
        # Higher priority first, then the earliest deadline, then first come, first served.
        self.key: Key = (-priority, due_ns, number)
        self.enqueued_ns = 0
        self.predicted_ns = 0
        self.waiting = False
