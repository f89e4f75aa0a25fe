"""Requests that go through one call, and the call's times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from openinfer.ir.graph import Array
from openinfer.scheduler.lane import JointCall, Run
from openinfer.scheduler.request import Request

clock = time.perf_counter_ns


class Batch:
    """Some requests of one lane: `gather`, then `call` on any thread, then `answers`; `execute` is the first two here and now.

    Times in ns: `start_ns` when it left the queue, `kernel_ns` of the call, `gil_ns` until the thread held the GIL again, `handoff_ns` on
    the way to and from the thread.
    """

    __slots__ = (
        "_alone",
        "_error",
        "_held",
        "_joint",
        "_run",
        "_stamps",
        "call",
        "ended_ns",
        "gil_ns",
        "handed_ns",
        "handoff_ns",
        "kernel_ns",
        "named",
        "requests",
        "start_ns",
        "table",
    )

    def __init__(self, requests: Sequence[Request], run: Run, start_ns: int) -> None:
        self.requests, self._run, self.start_ns = requests, run, start_ns
        self._joint: JointCall | None = None
        self._alone: dict[str, Any] | None = None
        self.named = False
        self._error: BaseException | None = None
        self._stamps: Any = None
        self.call: Any = self._run_alone
        self._held: Any = None
        self.table: Array | None = None  # of the call, where a native worker can run it
        self.handed_ns = start_ns
        self.ended_ns = self.gil_ns = self.handoff_ns = self.kernel_ns = 0

    @property
    def size(self) -> int:
        """Requests in it."""
        return len(self.requests)

    @property
    def rows(self) -> int:
        """Rows of all its requests."""
        return sum(request.rows for request in self.requests)

    def gather(self) -> None:
        """Copy the rows together, where the lane joins; a request that cannot be joined runs alone."""
        lane = self.requests[0].lane
        if lane.native:
            self._joint = lane.lease()
            bound = self._joint.gather(self.requests)
            self.table, self.call, self._held, self._stamps = bound.table, bound.call, bound.held, bound.stamps
        self.handed_ns = clock()

    def execute(self, keep_gil: bool) -> None:
        """Gather and call on this thread. To give the GIL up costs little, but to get it back beside a busy thread may take 5 ms."""
        begun = clock()
        error: BaseException | None = None
        try:
            self.gather()
            if keep_gil and self._held is not None:
                self.call, self._stamps = self._held, None
            begun = clock()
            self.call()
        except Exception as raised:
            error = raised
        self.called(begun, clock(), error)
        self.handoff_ns = 0

    def called(self, begun_ns: int, ended_ns: int, error: BaseException | None, stamped: bool = True) -> None:
        """The call has been made; `stamped` tells whether it was one that sets the stamps."""
        self._error = error
        if self._stamps is not None and error is None and stamped:
            self.gil_ns = int(self._stamps[2] - self._stamps[1])
        self.ended_ns = ended_ns - self.gil_ns
        self.kernel_ns = self.ended_ns - begun_ns
        self.handoff_ns = begun_ns - self.handed_ns

    def answers(self) -> list[dict[str, Any] | BaseException]:
        """One for each request: its outputs or its error. Gives the buffers back."""
        try:
            if self._error is not None:
                return self._apart(self._error)
            if self._joint is not None:
                return [*self._joint.scatter(self.requests)]
            assert self._alone is not None
            return [self._alone]
        finally:
            self.release()

    def release(self) -> None:
        """Give the buffers back."""
        if self._joint is not None:
            self.requests[0].lane.release(self._joint)
            self._joint = None

    def _apart(self, error: BaseException) -> list[dict[str, Any] | BaseException]:
        """Of a joined call that failed, run every request alone: only those that are to blame fail."""
        if self.size == 1:
            return [error]
        answers: list[dict[str, Any] | BaseException] = []
        for request in self.requests:
            try:
                answers.append(self._run(request.arrays))
            except Exception as own:
                answers.append(own)
        return answers

    def _run_alone(self) -> None:
        self._alone = self._run(self.requests[0].arrays)
