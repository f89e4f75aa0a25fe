"""Which blocking callables leave the loop: in `hybrid` all, in `async` none, in `auto` those that are seen to wait.

A call that waits, for a disk or another machine, stalls every request while it stands on the loop; on the pool its wait costs nobody
anything. A call that computes under the GIL takes as long anywhere, and the hand-overs of the GIL between two threads cost more than they
save. What tells them apart is the time that the call's own thread used: the rest of what it took, it waited.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Literal

from openinfer.scheduler.doubt import Doubt

KEPT = 512  # callables
WAIT_NS = 40_000  # what a hop to another thread and back costs: a shorter wait stalls nobody worth mentioning
PROBE_EVERY = 100  # times what the last probe took: one is at most 1% of the loop's time
# Hybrid passes async where a call waits for 45% of its time (benchmarks/scheduler.py crossing), 0.8 of what it computes.
ENTER, LEAVE = 0.8, 0.5
LONGEST_PROBE_NS = 20_000_000  # a callable that always takes longer is no longer tried on the loop
WINDOW = 32  # calls over which the fastest is known

Configured = Literal["auto", "inline", "async", "hybrid"]

clock, used = time.perf_counter_ns, time.thread_time_ns


class Callee:
    """What is known of one callable: `took_ns` is what a call is expected to take, `waited_ns` and `used_ns` its two parts on the loop."""

    __slots__ = ("_auto", "_fastest_ns", "_next_probe_ns", "_seen", "doubt", "moves", "pooled", "took_ns", "used_ns", "waited_ns")

    def __init__(self, configured: Configured) -> None:
        self._auto = configured == "auto"
        self.pooled = configured == "hybrid"
        self.took_ns = self.waited_ns = self.used_ns = 0
        self.moves = 0
        self.doubt = Doubt()
        self._seen = 0
        self._fastest_ns = 0
        self._next_probe_ns = 0

    def leaves(self, now: int) -> bool:
        """Whether the call that begins now goes to the pool."""
        return self.pooled and not (self._auto and now >= self._next_probe_ns and self._fastest_ns <= LONGEST_PROBE_NS)

    def run(self, function: Callable[[Any], Any], argument: Any) -> tuple[Any, int]:
        """The call, here and now, and the ns that it took. What it raises is not counted."""
        if not self._auto:
            begin = clock()
            value = function(argument)
            took = clock() - begin
            self._expect(took)
            return value, took
        before, begin = used(), clock()
        value = function(argument)
        took = clock() - begin
        self._judge(took, used() - before)
        return value, took

    def observe(self, took: int) -> None:
        """A call on the pool took so long, waits for the GIL included."""
        self._expect(took)
        self._fastest_ns = took if self._seen % WINDOW == 0 else min(took, self._fastest_ns)
        self._seen += 1

    def _expect(self, took: int) -> None:
        # Falls faster than it rises: one slow call, as of a connection that is made, must not refuse the next ones for long.
        self.took_ns += took if not self.took_ns else took - self.took_ns >> (1 if took < self.took_ns else 3)
        self.doubt.settle()

    def _judge(self, took: int, spent: int) -> None:
        """A call on the loop: learn its two parts, and choose where the next one runs."""
        self._expect(took)
        waited, first = max(0, took - spent), not self._seen and not self.used_ns
        weight = 0 if first else 2 if self.pooled else 3  # probes are few
        self.waited_ns += waited - self.waited_ns >> weight
        self.used_ns += spent - self.used_ns >> weight
        # Between the thresholds it stays where it is.
        if self.pooled:
            self._next_probe_ns = clock() + PROBE_EVERY * took
            if self.waited_ns < LEAVE * self.used_ns or self.waited_ns < WAIT_NS // 2:
                self.pooled, self.moves = False, self.moves + 1
        elif self.waited_ns > ENTER * self.used_ns and self.waited_ns > WAIT_NS:
            self.pooled, self.moves = True, self.moves + 1
            self._seen, self._fastest_ns = 0, took
            self._next_probe_ns = clock() + PROBE_EVERY * took


class Callables:
    """The callables of one scheduler, and how many tasks had one."""

    __slots__ = ("_callees", "_configured", "_moves", "blocking", "plain")

    def __init__(self, configured: Configured) -> None:
        self._configured: Configured = configured
        self._callees: dict[Any, Callee] = {}
        self._moves = 0  # of callables that were forgotten
        self.plain = self.blocking = 0  # tasks without a callable, and with one

    def of(self, function: Callable[[Any], Any]) -> Callee:
        """What is known of `function`. A closure that is made for every request is the same callable each time, and so is a partial."""
        while isinstance(function, functools.partial):
            function = function.func
        code = getattr(function, "__code__", None) or type(function)
        callee = self._callees.get(code)
        if callee is None:
            if len(self._callees) >= KEPT:
                self._moves = self.moves
                self._callees.clear()
            callee = self._callees[code] = Callee(self._configured)
        return callee

    @property
    def moves(self) -> int:
        """How often a callable was moved to the pool or back."""
        return self._moves + sum(callee.moves for callee in self._callees.values())

    @property
    def mode(self) -> Literal["inline", "async", "hybrid"]:
        """The mode in force: `auto` is hybrid while a callable runs on the pool."""
        if self._configured != "auto":
            return self._configured
        return "hybrid" if any(callee.pooled for callee in self._callees.values()) else "async"

    def statistics(self) -> dict[str, Any]:
        """The mode in force, the share of tasks with a callable, and how often a callable was moved."""
        tasks = self.plain + self.blocking
        return {"mode": self.mode, "blocking_share": self.blocking / tasks if tasks else 0.0, "mode_switches": self.moves}
