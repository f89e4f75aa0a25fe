"""`auto`: hybrid where many tasks block, else async, measured on the live traffic."""

from __future__ import annotations

from typing import Literal

Mode = Literal["inline", "async", "hybrid"]

ENTER_SHARE, LEAVE_SHARE = 0.30, 0.20
FEWEST = 32  # tasks before the first decision
WINDOW = 128  # tasks over which the share is averaged, exponentially: its standard deviation is 0.03 at a share of 0.3
HOP_NS = 40_000  # what a hop to another thread and back costs: a call that is shorter does not block anybody worth mentioning


class ModeChooser:
    """The mode in force. A fixed one stays; `auto` starts as async and follows the share of tasks that block, with hysteresis."""

    __slots__ = ("_auto", "blocking_share", "mode", "plain", "seen", "switches")

    def __init__(self, configured: Literal["auto", "inline", "async", "hybrid"]) -> None:
        self._auto = configured == "auto"
        self.mode: Mode = "async" if configured == "auto" else configured
        self.blocking_share = 0.0
        self.switches = 0
        self.seen = 0
        self.plain = 0  # tasks without blocking callables since the last look: counting them has to cost nothing

    def observe(self, blocking_ns: int) -> None:
        """One task was done whose blocking callables took so long in all."""
        self.settle()
        self.seen += 1
        # A plain mean until the window is full.
        self.blocking_share += ((1.0 if blocking_ns > HOP_NS else 0.0) - self.blocking_share) / min(self.seen, WINDOW)
        self._choose()

    def settle(self) -> None:
        """Let the tasks counted in `plain` weigh in."""
        if self.plain:
            early = min(self.plain, max(0, WINDOW - self.seen))
            self.blocking_share *= self.seen / max(self.seen + early, 1) * (1 - 1 / WINDOW) ** (self.plain - early)
            self.seen, self.plain = self.seen + self.plain, 0
            self._choose()

    def _choose(self) -> None:
        if not self._auto or self.seen < FEWEST:
            return
        if self.mode == "async" and self.blocking_share > ENTER_SHARE:
            self.mode, self.switches = "hybrid", self.switches + 1
        elif self.mode == "hybrid" and self.blocking_share < LEAVE_SHARE:
            self.mode, self.switches = "async", self.switches + 1
