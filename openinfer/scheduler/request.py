"""A request in the queue, and the order that requests are served in."""

from __future__ import annotations

import asyncio
import math
import numbers
from typing import TYPE_CHECKING, Any

from openinfer.errors import InputError

if TYPE_CHECKING:
    from openinfer.scheduler.lane import Shape

NEVER = 1 << 62  # the due time of a request without a deadline, in ns
LONGEST_S = 1e9  # a later deadline is none
Key = tuple[int, int, int]


def key_of(priority: int, due_ns: int, number: int) -> Key:
    """Higher priority first, then the earliest deadline, then first come, first served."""
    return -priority, due_ns, number


def checked(deadline: Any, priority: Any) -> tuple[float | None, int]:
    """A deadline that fits into ns, and a priority that can be ordered; `InputError` for what is neither."""
    if not isinstance(priority, numbers.Integral):
        raise InputError(f"found {priority=}; allowed: an integer, the higher the sooner")
    if deadline is None:
        return None, int(priority)
    number = deadline if isinstance(deadline, numbers.Real) else math.nan
    seconds = float(max(min(number, 2 * LONGEST_S), -2 * LONGEST_S))
    if not seconds >= -LONGEST_S:
        raise InputError(f"found {deadline=}; allowed: seconds from now on, or None where the answer may come at any time")
    return None if seconds > LONGEST_S else seconds, int(priority)


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
