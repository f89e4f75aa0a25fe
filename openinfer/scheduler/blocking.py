"""The pool for calls that block, such as a look-up in a feature store: they do not stall the loop, and they have a time-out.

A call that computes more than it waits fights the loop for the GIL: a look-up in SQLite gives it up at every row, and each time either
thread has to be woken. So the loop stands aside while such calls run, one after the other, and goes on as soon as one of them waits.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from openinfer.errors import BlockingTimeoutError, DeadlineError, OverloadError, SchedulerError
from openinfer.scheduler.callable_kind import PATIENCE_NS, Kind, Kinds
from openinfer.scheduler.mailbox import Mailbox
from openinfer.scheduler.ordered_lock import LockOrder, OrderedLock

IDLE_S = 10.0  # an idle thread ends after this time
ASIDE_NS = 1_000_000  # the loop stands aside for so long, then it turns
START_NS = 1_000_000  # a thread that has not begun after so long has no processor

clock = time.perf_counter_ns


class BlockingCall:
    """One call: what it runs, its future on the loop, and the waits on record, in ns."""

    __slots__ = (
        "argument",
        "begun_ns",
        "ended_ns",
        "function",
        "future",
        "kind",
        "lock_ns",
        "named",
        "queued_ns",
        "stood_still",
        "thread",
        "watched",
        "work_ns",
    )

    def __init__(self, function: Callable[[Any], Any], argument: Any, kind: Kind, future: asyncio.Future[Any]) -> None:
        self.function, self.argument, self.kind, self.future = function, argument, kind, future
        self.queued_ns = self.begun_ns = self.ended_ns = self.lock_ns = self.work_ns = 0
        self.thread = 0
        self.named = False
        self.watched = self.stood_still = False  # the loop stood aside for it; in vain


class _Turn:
    """A thread's leave to run brisk calls, one after the other, while the loop stands aside."""

    __slots__ = ("call", "ended", "revoked")

    def __init__(self) -> None:
        self.call: BlockingCall | None = None
        self.revoked = False
        self.ended = threading.Lock()  # released when the turn has ended
        self.ended.acquire()


class _Shared:
    """What the threads and the loop share, guarded by `lock`."""

    def __init__(self, order: LockOrder | None) -> None:
        self.lock = OrderedLock("the blocking pool", order)
        self.wake: queue.SimpleQueue[_Turn | bool] = queue.SimpleQueue()  # a turn, or True where a call is in `waiting`, or may be
        self.waiting: collections.deque[BlockingCall] = collections.deque()  # for any thread
        self.brisk: collections.deque[BlockingCall] = collections.deque()  # for the next turn
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
        self.kinds = Kinds()
        self._attending = False
        self._finalizer = weakref.finalize(self, _close, self._shared)

    async def call(self, function: Callable[[Any], Any], argument: Any, timeout_ns: int, deadline: bool) -> BlockingCall:
        """Run `function(argument)` on the pool; its value is `future.result()`. Raises what it raises, `BlockingTimeoutError` after
        `timeout_ns` (`DeadlineError` where `deadline` tells that this is the request's own limit), `OverloadError`.
        """
        loop, kind = asyncio.get_running_loop(), self.kinds.find(function)
        call = BlockingCall(function, argument, kind, loop.create_future())
        call.queued_ns = clock()
        if self._shared.closed:
            raise _closed()
        self._refuse_beyond_limit()
        if kind.brisk(call.queued_ns):
            self._shared.brisk.append(call)
            self._attend_soon(loop)
        else:
            self._queue(call)
        timer = loop.call_later(timeout_ns / 1e9, self._expire, call, timeout_ns, deadline)
        try:
            await call.future
        finally:
            timer.cancel()
        kind.ended(call.work_ns)
        if call.watched and not call.stood_still:
            kind.ended_soon()
        else:
            self._try_again(kind, call.ended_ns, loop)
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
                "waiting": len(shared.waiting) + len(shared.brisk),
                "timeouts": self.timeouts,
                "lock_contended": shared.lock.contended,
                "lock_waited_ns": shared.lock.waited_ns,
            }

    def close(self) -> None:
        """Start nothing more: what waits for a thread fails with `SchedulerError`; idle threads end now, the others after their call."""
        waiting = [*self._shared.brisk, *self._shared.waiting]
        self._finalizer()
        for call in waiting:
            if not call.begun_ns and not call.future.done() and not call.future.get_loop().is_closed():
                call.future.set_exception(_closed())

    def leave(self) -> None:
        """In a forked child, where the threads do not exist: forget them, and the lock that one may have held."""
        self._finalizer.detach()
        self._shared.closed = True

    def _refuse_beyond_limit(self) -> None:
        waiting = len(self._shared.waiting) + len(self._shared.brisk)
        if waiting >= self._limit:
            raise OverloadError(
                f"{waiting} blocking calls wait; allowed: scheduler.queue_limit = {self._limit}; "
                "raise scheduler.blocking_threads or send fewer"
            )

    def _queue(self, call: BlockingCall) -> None:
        self._shared.waiting.append(call)
        call.lock_ns += self._wake(True)

    def _wake(self, job: _Turn | bool) -> int:
        """Wake a thread, or start one; the ns that the lock was waited for."""
        shared = self._shared
        before = clock()
        with shared.lock:
            waited = clock() - before
            shared.wake.put(job)
            start = shared.wake.qsize() > shared.idle and shared.threads < self._most_threads()
            shared.threads += start
        if start:
            threading.Thread(target=_serve, args=(shared, self._mailbox), name="openinfer-blocking", daemon=True).start()
        return waited

    def _most_threads(self) -> int:
        shared = self._shared
        stuck = sum(running.future.done() for running in shared.running) if shared.threads >= self.threads else 0
        return self.threads + min(stuck, self.threads)

    # --- brisk calls

    def _attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stand aside while a thread runs the brisk calls; where one waits, let another thread go on; at last take the answers."""
        self._attending = False
        brisk = self._shared.brisk
        until = clock() + ASIDE_NS
        while brisk and clock() < until:
            if not self._thread_is_free():
                self._give(brisk, None)
                break
            turn = _Turn()
            self._wake(turn)
            if self._stand_aside(turn, until):
                self._give(brisk, clock())
            elif self._shared.waiting:
                self._take_back()
        self._mailbox.drain()
        if brisk:
            self._attend_soon(loop)

    def _attend_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._attending:
            self._attending = True
            loop.call_soon(self._attend, loop)

    def _try_again(self, kind: Kind, now: int, loop: asyncio.AbstractEventLoop) -> None:
        """A call has ended that may have waited: perhaps what it waited for is over for all."""
        waiting = self._shared.waiting
        with contextlib.suppress(IndexError):  # the threads were quicker
            if waiting[0].kind is kind and kind.brisk(now):
                self._shared.brisk.append(waiting.popleft())
                self._attend_soon(loop)

    def _thread_is_free(self) -> bool:
        shared = self._shared
        with shared.lock:
            return shared.idle > shared.wake.qsize() or shared.threads < self._most_threads()

    def _stand_aside(self, turn: _Turn, until: int) -> bool:
        """Wait until the turn ends, is over time, or its call waits; True for the last."""
        begun = now = clock()
        while True:
            call = turn.call
            patience = call.begun_ns + call.kind.patience_ns - now if call is not None and call.begun_ns else PATIENCE_NS
            if turn.ended.acquire(timeout=max(patience, 1000) / 1e9):
                return False
            now, same = clock(), turn.call
            if same is None or not same.begun_ns:
                if now - begun > START_NS:
                    turn.revoked = True
                    return True
            elif same is call and now - same.begun_ns >= same.kind.patience_ns:
                turn.revoked = same.stood_still = True
                same.kind.stood_still(now)
                return True
            if now > until:
                turn.revoked = True
                return False

    def _give(self, brisk: collections.deque[BlockingCall], now: int | None) -> None:
        """To any threads: brisk calls, all or those of kinds that turned out to wait."""
        for _ in range(len(brisk)):
            try:
                call = brisk.popleft()
            except IndexError:  # a thread took it before it saw that its turn is over
                return
            if now is not None and call.kind.brisk(now):
                brisk.append(call)
            else:
                self._queue(call)

    def _take_back(self) -> None:
        """What the calls of a kind waited for is over: those that no thread has begun are brisk again."""
        waiting = self._shared.waiting
        for _ in range(len(waiting)):
            try:
                call = waiting.popleft()
            except IndexError:  # the threads were quicker
                return
            (self._shared.brisk if call.kind.waits < 0.5 else waiting).append(call)

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
        try:
            job = shared.wake.get(timeout=IDLE_S)
        except queue.Empty:
            job = False
        with shared.lock:
            shared.idle -= 1
            if not job:
                if not shared.closed and shared.wake.qsize():
                    continue
                shared.threads -= 1
                return
        if isinstance(job, _Turn):
            _take_turn(job, shared, mailbox)
            continue
        with contextlib.suppress(IndexError):  # the loop may have taken it back
            _run(shared.waiting.popleft(), shared, mailbox, quiet=False)


def _take_turn(turn: _Turn, shared: _Shared, mailbox: Mailbox) -> None:
    while not turn.revoked:
        try:
            call = shared.brisk.popleft()
        except IndexError:
            break
        call.watched = True
        turn.call = call
        _run(call, shared, mailbox, quiet=True)  # the loop looks by itself
        turn.call = None
        del call
    turn.ended.release()
    if turn.revoked:
        mailbox.wake()


def _run(call: BlockingCall, shared: _Shared, mailbox: Mailbox, quiet: bool) -> None:
    if call.future.done():  # it timed out or was cancelled before it began
        return
    with shared.lock:
        shared.running.add(call)
    call.thread = threading.get_ident()
    value: Any = None
    raised: Exception | None = None
    work = time.thread_time_ns()
    call.begun_ns = clock()
    try:
        value = call.function(call.argument)
    except Exception as error:  # it belongs to the request
        raised = error
    except BaseException as error:  # on the loop it would end the loop, and every other request with it
        raised = SchedulerError(f"the blocking call raised {type(error).__name__}; let it raise an Exception, or return")
        raised.__cause__ = error
    call.ended_ns = clock()
    call.work_ns = time.thread_time_ns() - work
    mailbox.post(lambda: _settle(call.future, value, raised), quiet)
    with shared.lock:
        shared.running.discard(call)


def _settle(future: asyncio.Future[Any], value: Any, raised: Exception | None) -> None:
    if future.done():
        return
    if isinstance(raised, StopIteration):  # a future refuses it
        raised = RuntimeError("the blocking call raised StopIteration")
    if raised is None:
        future.set_result(value)
    else:
        future.set_exception(raised)


def _closed() -> SchedulerError:
    return SchedulerError("the engine was closed before the request's blocking call could begin; use aclose to let it end")


def _close(shared: _Shared) -> None:
    with shared.lock:
        shared.closed = True
        shared.brisk.clear()
        shared.waiting.clear()
        for _ in range(shared.threads):
            shared.wake.put(False)
