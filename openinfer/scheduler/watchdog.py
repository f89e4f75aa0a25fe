"""Names what stands still: a loop that does not turn, blocking calls and kernels that do not end, each with its stack."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import sys
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openinfer.scheduler.scheduler import Scheduler

log = logging.getLogger("openinfer")

KEPT = 64
LAGS = 1024
LOOKS = 4  # looks within the time that counts as a stall

clock = time.perf_counter_ns


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that stood still: `kind` (loop, blocking call, kernel), its name, for how long so far, and the stack of its thread."""

    kind: str
    name: str
    stalled_ns: int
    stack: str


class Watchdog:
    """A thread that looks four times within `stall_ms`; it starts at the first look-out and ends with its scheduler.

    `look` is one look, and can be called by hand. Loop lag is the time from posting a callback to its run.
    """

    def __init__(self, scheduler: Scheduler, loop: asyncio.AbstractEventLoop, stall_ms: int) -> None:
        self._scheduler = weakref.ref(scheduler)
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._stall_ns = stall_ms * 1_000_000
        self.findings: collections.deque[Finding] = collections.deque(maxlen=KEPT)
        self._lags: collections.deque[int] = collections.deque(maxlen=LAGS)
        self._posted_ns = 0
        self._loop_named = False
        self._stop = threading.Event()
        thread = threading.Thread(target=_watch, args=(weakref.ref(self), self._stop, stall_ms / 1e3 / LOOKS), name="openinfer-watchdog")
        thread.daemon = True
        thread.start()

    def look(self, now_ns: int) -> list[Finding]:
        """What stands still at `now_ns` and was not named before."""
        scheduler = self._scheduler()
        if scheduler is None or self._loop.is_closed():
            self._stop.set()
            return []
        found = self._look_at_loop(now_ns)
        for call in scheduler.blocking.running():
            if call.begun_ns and now_ns - call.begun_ns > self._stall_ns and not call.named:
                call.named = True
                name = getattr(call.function, "__qualname__", type(call.function).__name__)
                found.append(Finding("blocking call", name, now_ns - call.begun_ns, _stack(call.thread)))
        for job in scheduler.jobs():
            if job.begun_ns and now_ns - job.begun_ns > self._stall_ns and not job.named:
                job.named = True
                found.append(Finding("kernel", "a joined call", now_ns - job.begun_ns, _stack(job.thread)))
        for batch in scheduler.batches():
            if now_ns - batch.handed_ns > self._stall_ns and not batch.named:
                batch.named = True
                found.append(Finding("kernel", f"a call of {batch.size} requests", now_ns - batch.handed_ns, "(in compiled code)"))
        for finding in found:
            self.findings.append(finding)
            log.warning("%s %s has stood still for %.0f ms:\n%s", finding.kind, finding.name, finding.stalled_ns / 1e6, finding.stack)
        return found

    def statistics(self) -> dict[str, Any]:
        """Loop lag of the latest looks in ns, and the findings, newest last."""
        lags = sorted(self._lags)
        lag = {"p50": lags[len(lags) // 2], "p99": lags[len(lags) * 99 // 100], "max": lags[-1]} if lags else {}
        return {"loop_lag_ns": lag, "findings": [dataclasses.asdict(finding) for finding in self.findings]}

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _look_at_loop(self, now_ns: int) -> list[Finding]:
        posted = self._posted_ns
        if posted:
            if now_ns - posted > self._stall_ns and not self._loop_named:
                self._loop_named = True
                return [Finding("loop", "the event loop", now_ns - posted, _stack(self._loop_thread))]
            return []
        self._loop_named = False
        self._posted_ns = now_ns
        try:
            self._loop.call_soon_threadsafe(self._turned)
        except RuntimeError:  # closed meanwhile
            self._stop.set()
        return []

    def _turned(self) -> None:
        self._lags.append(clock() - self._posted_ns)
        self._posted_ns = 0


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    return "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)"


def _watch(watchdog: weakref.ref[Watchdog], stop: threading.Event, every_s: float) -> None:
    while not stop.wait(every_s):
        alive = watchdog()
        if alive is None:
            return
        alive.look(clock())
        del alive
