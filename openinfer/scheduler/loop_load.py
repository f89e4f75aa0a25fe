"""How busy the loop's own thread is: whether it needs a processor for itself."""

from __future__ import annotations

import time

INTERVAL_NS = 10_000_000
BUSY = 0.5


class LoopLoad:
    """The processor time that the loop's thread used, over the time that passed. Belongs to that thread."""

    __slots__ = ("_at_ns", "_used_ns", "busy")

    def __init__(self) -> None:
        self._at_ns = self._used_ns = 0
        self.busy = False

    def look(self, now_ns: int) -> bool:
        """Whether the thread used more than half a processor over the last 10 ms or more."""
        passed = now_ns - self._at_ns
        if passed > INTERVAL_NS:
            used = time.thread_time_ns()
            self.busy = used - self._used_ns > BUSY * passed
            self._at_ns, self._used_ns = now_ns, used
        return self.busy
