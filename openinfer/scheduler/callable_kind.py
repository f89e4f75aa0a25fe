"""What the pool knows of the blocking callables of one kind: how much they work, and how often they stand still."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

KEPT = 512  # kinds
PATIENCE_NS = 200_000  # a call that has not ended after so long, or twice the work of its kind, waits for something
MOST_PATIENCE_NS = 500_000
PROBE_NS, MOST_PROBE_NS = 1_000_000, 64_000_000


class Kind:
    """Callables that share their code.

    `work_ns`: processor time of a call; `waits`: which share of the calls stood still of late. A kind is `brisk` while most of its calls
    end within `patience_ns`. One that is not is tried again from time to time, less and less often: what it waits for may be over.
    """

    __slots__ = ("_probe_at_ns", "_probe_ns", "waits", "work_ns")

    def __init__(self) -> None:
        self.work_ns = 0
        self.waits = 0.0
        self._probe_ns = PROBE_NS
        self._probe_at_ns = 0

    @property
    def patience_ns(self) -> int:
        """How long a call may take before it is said to wait."""
        return min(max(PATIENCE_NS, 2 * self.work_ns), MOST_PATIENCE_NS)

    def brisk(self, now_ns: int) -> bool:
        """Whether the next call is expected to end soon, or is to be tried."""
        if self.waits < 0.5:
            return 2 * self.work_ns <= MOST_PATIENCE_NS
        if now_ns < self._probe_at_ns:
            return False
        self._probe_at_ns = now_ns + self._probe_ns
        return True

    def ended(self, work_ns: int) -> None:
        """A call was made. Falls faster than it rises: what disturbs a call only adds to it."""
        work = self.work_ns
        self.work_ns = work + (work_ns - work >> (1 if work_ns < work else 3)) if work else work_ns

    def ended_soon(self) -> None:
        """A call that was watched did not wait."""
        self.waits *= 0.75
        self._probe_ns = PROBE_NS

    def stood_still(self, now_ns: int) -> None:
        """A call that was watched waits."""
        if self.waits >= 0.5:
            self._probe_ns = min(2 * self._probe_ns, MOST_PROBE_NS)
        self.waits += (1 - self.waits) / 4
        self._probe_at_ns = now_ns + self._probe_ns


class Kinds:
    """The kinds seen, by code: a closure that is made for every request is the same code each time."""

    def __init__(self) -> None:
        self._kinds: dict[Any, Kind] = {}

    def find(self, function: Callable[[Any], Any]) -> Kind:
        """The callable's kind."""
        while isinstance(function, functools.partial):
            function = function.func
        code = getattr(function, "__code__", None) or type(function)
        kind = self._kinds.get(code)
        if kind is None:
            if len(self._kinds) >= KEPT:
                self._kinds.clear()
            kind = self._kinds[code] = Kind()
        return kind
