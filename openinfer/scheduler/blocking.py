"""The pool for calls that block, such as a look-up in a feature store: they never stall the loop, and they have a time-out."""

from __future__ import annotations

import asyncio
import collections
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from openinfer.errors import BlockingTimeoutError, DeadlineError, OverloadError
from openinfer.scheduler.mailbox import Mailbox
from openinfer.scheduler.ordered_lock import LockOrder, OrderedLock

IDLE_S = 10.0  # an idle thread ends after this time

clock = time.perf_counter_ns


class BlockingCall:
    """One call: what it runs, its future on the loop, and the waits on record, in ns."""

    __slots__ = ("argument", "begun_ns", "ended_ns", "function", "future", "lock_ns", "named", "queued_ns", "thread")

    def __init__(self, function: Callable[[Any], Any], argument: Any, future: asyncio.Future[Any]) -> None:
        self.function, self.argument, self.future = function, argument, future
        self.queued_ns = self.begun_ns = self.ended_ns = self.lock_ns = 0
        self.thread = 0
        self.named = False


class _Shared:
    """What the threads and the loop share, guarded by `lock`."""

    def __init__(self, order: LockOrder | None) -> None:
        self.lock = OrderedLock("the blocking pool", order)
        self.waiting: collections.deque[BlockingCall] = collections.deque()
        self.wake = threading.Semaphore(0)
        self.running: set[BlockingCall] = set()
        self.threads = 0
        self.idle = 0
        self.closed = False


class BlockingPool:
    """At most `threads` threads, and one more for every one that is stuck beyond its time-out. Belongs to the loop's thread.

    `limit` calls may wait; more are refused with `OverloadError`. A thread cannot be stopped from outside: a call that times out gives its
    request an error at once and goes on; until it ends, another thread stands in for its own (at most `threads` of them).
    """

    def __init__(self, threads: int, limit: int, mailbox: Mailbox, order: LockOrder | None = None) -> None:
        self.threads, self._limit, self._mailbox = threads, limit, mailbox
        self._shared = _Shared(order)
        self.timeouts = 0
        self._finalizer = weakref.finalize(self, _close, self._shared)

    async def call(self, function: Callable[[Any], Any], argument: Any, timeout_ns: int, deadline: bool) -> BlockingCall:
        """Run `function(argument)` on the pool; its value is `future.result()`. Raises what it raises, `BlockingTimeoutError` after
        `timeout_ns` (`DeadlineError` where `deadline` tells that this is the request's own limit), `OverloadError`.
        """
        loop = asyncio.get_running_loop()
        call = BlockingCall(function, argument, loop.create_future())
        call.queued_ns = clock()
        self._queue(call)
        timer = loop.call_later(timeout_ns / 1e9, self._expire, call, timeout_ns, deadline)
        try:
            await call.future
        finally:
            timer.cancel()
        return call

    def running(self) -> list[BlockingCall]:
        """The calls that run now."""
        with self._shared.lock:
            return list(self._shared.running)

    def statistics(self) -> dict[str, int]:
        """Threads, calls that run and wait, time-outs so far, and how often and how long the pool's lock was waited for."""
        shared = self._shared
        with shared.lock:
            return {
                "threads": shared.threads,
                "running": len(shared.running),
                "waiting": len(shared.waiting),
                "timeouts": self.timeouts,
                "lock_contended": shared.lock.contended,
                "lock_waited_ns": shared.lock.waited_ns,
            }

    def close(self) -> None:
        """Start nothing more; idle threads end now, the others after their call."""
        self._finalizer()

    def _queue(self, call: BlockingCall) -> None:
        shared = self._shared
        before = clock()
        with shared.lock:
            call.lock_ns = clock() - before
            if len(shared.waiting) >= self._limit:
                raise OverloadError(
                    f"{len(shared.waiting)} blocking calls wait; allowed: scheduler.queue_limit = {self._limit}; "
                    "raise scheduler.blocking_threads or send fewer"
                )
            shared.waiting.append(call)
            stuck = sum(running.future.done() for running in shared.running) if shared.threads >= self.threads else 0
            start = len(shared.waiting) > shared.idle and shared.threads < self.threads + min(stuck, self.threads)
            shared.threads += start
        shared.wake.release()
        if start:
            threading.Thread(target=_serve, args=(shared, self._mailbox), name="openinfer-blocking", daemon=True).start()

    def _expire(self, call: BlockingCall, timeout_ns: int, deadline: bool) -> None:
        if call.future.done():
            return
        self.timeouts += 1
        name = getattr(call.function, "__qualname__", type(call.function).__name__)
        state = "runs" if call.begun_ns else "waits for a thread"
        if deadline:
            error: Exception = DeadlineError(f"the blocking call {name} still {state} at the deadline; allow more time or make it faster")
        else:
            error = BlockingTimeoutError(
                f"the blocking call {name} still {state} after {timeout_ns / 1e6:.0f} ms; allowed: scheduler.blocking_timeout_ms; "
                "make it faster or raise the limit"
            )
        call.future.set_exception(error)


def _serve(shared: _Shared, mailbox: Mailbox) -> None:
    """A thread's life. It holds what is shared, never the pool, so that a dropped pool can end it."""
    while True:
        with shared.lock:
            shared.idle += 1
        woken = shared.wake.acquire(timeout=IDLE_S)
        with shared.lock:
            shared.idle -= 1
            call = shared.waiting.popleft() if woken and shared.waiting else None
            if call is None:
                if not shared.closed and (woken or shared.waiting):
                    continue
                shared.threads -= 1
                return
            shared.running.add(call)
        if not call.future.done():  # else it timed out or was cancelled before it began
            _run(call, mailbox)
        with shared.lock:
            shared.running.discard(call)
        del call


def _run(call: BlockingCall, mailbox: Mailbox) -> None:
    call.thread = threading.get_ident()
    call.begun_ns = clock()
    value: Any = None
    raised: BaseException | None = None
    try:
        value = call.function(call.argument)
    except BaseException as error:  # it belongs to the request
        raised = error
    call.ended_ns = clock()
    mailbox.post(lambda: _settle(call.future, value, raised))


def _settle(future: asyncio.Future[Any], value: Any, raised: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(raised, StopIteration):  # a future refuses it
        raised = RuntimeError("the blocking call raised StopIteration")
    if raised is None:
        future.set_result(value)
    else:
        future.set_exception(raised)


def _close(shared: _Shared) -> None:
    with shared.lock:
        shared.closed = True
        shared.waiting.clear()
        for _ in range(shared.threads):
            shared.wake.release()
