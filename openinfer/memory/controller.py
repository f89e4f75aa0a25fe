"""How many idle blocks of each size a pool keeps: more after misses, fewer where blocks lay idle. Every decision is on record."""

from __future__ import annotations

import collections
import dataclasses

from openinfer.config import MemoryConfig

KEPT_DECISIONS = 256
QUIET_WINDOWS = 2  # a size must keep idle blocks for so long before it loses them: one lull is no trend


@dataclasses.dataclass(frozen=True)
class Policy:
    """How a pool behaves. `growth` is the ratio of neighbouring size classes; memory that was not needed in two windows of `idle_s` is
    given back; `budget_bytes` 0 sets no limit. Without `controller` nothing is given back before the budget is hit.
    """

    budget_bytes: int = 0
    alignment: int = 64
    growth: float = 1.125
    idle_s: float = 10.0
    controller: bool = True
    huge_pages: bool = False

    @classmethod
    def of(cls, knobs: MemoryConfig, alignment: int) -> Policy:
        """What a configuration asks for, with at least this alignment."""
        return cls(
            budget_bytes=knobs.budget_bytes,
            alignment=max(knobs.alignment, alignment),
            growth=knobs.size_growth,
            idle_s=knobs.idle_s,
            controller=knobs.controller,
            huge_pages=knobs.huge_pages,
        )


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was changed, when (in seconds of the pool's clock), and why. For `grow` and `shrink` the numbers are idle blocks to keep of one
    size; for `trim` and `reclaim`, bytes held before and after.
    """

    time_s: float
    action: str
    size_bytes: int
    before: int
    after: int
    reason: str


@dataclasses.dataclass(slots=True)
class _Size:
    keep: int = 1
    least_idle: int = 0
    misses: int = 0
    asked: bool = False
    quiet: int = 0


class Controller:
    """Watches one window of `idle_s` after the other. Used under the pool's lock."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._sizes: dict[int, _Size] = {}
        self._window_end: float | None = None
        self.decisions: collections.deque[Decision] = collections.deque(maxlen=KEPT_DECISIONS)
        self.counts: collections.Counter[str] = collections.Counter()

    def keep(self, size: int) -> int:
        """Idle blocks of this size to keep."""
        found = self._sizes.get(size)
        return found.keep if found is not None else 0

    def leased(self, size: int, idle: int) -> None:
        """A block was taken from the idle ones, of which `idle` are left."""
        found = self._sizes.get(size)
        if found is not None:
            found.asked = True
            if idle < found.least_idle:
                found.least_idle = idle

    def lacked(self, size: int) -> None:
        """There was no idle block of this size."""
        found = self._sizes.setdefault(size, _Size())
        found.asked, found.least_idle, found.quiet = True, 0, 0

    def missed(self, size: int, now: float, most: int) -> None:
        """Nor were there idle pages: the second miss in a window doubles the blocks that are kept, up to `most`."""
        found = self._sizes.setdefault(size, _Size())
        found.misses += 1
        after = min(2 * found.keep, most)
        if found.misses % 2 == 0 and after > found.keep:
            self.decide(now, "grow", size, found.keep, after, f"{found.misses} misses within {self._policy.idle_s:g} s")
            found.keep = after

    def due(self, now: float) -> bool:
        """Whether a window has ended; the next one begins."""
        if self._window_end is not None and now < self._window_end:
            return False
        ended = self._window_end is not None
        self._window_end = now + self._policy.idle_s
        return ended

    def shrink(self, now: float, idle: dict[int, int]) -> None:
        """At the end of a window: keep fewer of what lay idle through the last ones. `idle` is the number of idle blocks by size."""
        for size, found in list(self._sizes.items()):
            unused = found.least_idle
            found.quiet = found.quiet + 1 if unused or not found.asked else 0
            if found.quiet >= QUIET_WINDOWS:
                after = max(0, found.keep - max(1, unused))
                if after:
                    self.decide(now, "shrink", size, found.keep, after, f"{unused} idle for {found.quiet} windows")
                    found.keep = after
                else:
                    self.decide(now, "shrink", size, found.keep, 0, f"not asked for in {found.quiet} windows")
                    del self._sizes[size]
                    continue
            found.misses, found.asked, found.least_idle = 0, False, idle.get(size, 0)

    def decide(self, now: float, action: str, size: int, before: int, after: int, reason: str) -> None:
        """Put a decision on record."""
        self.counts[action] += 1
        self.decisions.append(Decision(now, action, size, before, after, reason))
