"""The scheduler of one event loop: `submit` on top, batches below, kernels on the loop or beside it.

A request runs at once, inside `submit`, while nothing waits and no company is expected: nothing then stands between call and kernel. As
soon as requests come closer together than a hop, they are queued instead, joined, and answered through their futures.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from openinfer.config import SchedulerConfig
from openinfer.errors import CompiledCodeError, DeadlineError, SchedulerError
from openinfer.ir.graph import Signature
from openinfer.machine import usable_processors
from openinfer.runtime.native_worker import NativeWorkers
from openinfer.runtime.program import RELEASE_GIL_NS, Program
from openinfer.scheduler.admission import Admission
from openinfer.scheduler.batch import Batch
from openinfer.scheduler.blocking import BlockingPool
from openinfer.scheduler.callables import Callables
from openinfer.scheduler.deadline_queue import DeadlineQueue
from openinfer.scheduler.lane import Lane, Run
from openinfer.scheduler.lanes import Accept, Lanes
from openinfer.scheduler.loop_load import LoopLoad
from openinfer.scheduler.mailbox import Mailbox
from openinfer.scheduler.ordered_lock import LockOrder
from openinfer.scheduler.records import Records
from openinfer.scheduler.request import NEVER, Request, checked, key_of, time_left
from openinfer.scheduler.watchdog import Watchdog
from openinfer.scheduler.workers import Job, Workers

COMPANY_NS = 5_000  # two requests closer than this came in one turn of the loop
JOIN_NS = 10_000  # calls that are shorter alone are not worth a queue: to wait for a future costs the loop as much
SPIN_US = 20  # a worker that waits for a call looks out for so long before it sleeps
FOREVER_NS = 1 << 62
CROWD = 16  # batches of one in a row after which requests are taken to come alone again
TURN_NS = 1_000_000  # work done without letting the loop turn
LOOK_S = 0.1  # whoever closes from another thread looks so often whether the loop still runs
SPIN_NS = 1_000_000  # timers of the loop are no finer than its select: shorter delays turn the loop instead

clock = time.perf_counter_ns
Callback = Callable[[Any], Any]


class Scheduler:
    """Serves the requests of one running loop. Every method belongs to the loop's thread, but for `statistics`."""

    def __init__(
        self,
        run: Run,
        accept: Accept,
        program: Callable[[], Program | None],
        inputs: Sequence[Signature],
        config: SchedulerConfig,
        threads: int,
        checks: bool = False,
    ) -> None:
        """`run` answers one request; `accept` checks one and converts its arrays; `program()` is the compiled whole that joined calls
        use, or `None`; `threads` are those of one call.
        """
        self._run, self._config = run, config
        self.loop, self._thread, self._process = asyncio.get_running_loop(), threading.get_ident(), os.getpid()
        self._lanes = Lanes(inputs, accept, program, config.max_batch)
        self._joinable = self._lanes.joinable
        processors = usable_processors()
        self._callables = Callables(config.mode)
        self._mailbox = Mailbox(self.loop)
        count = config.workers or max(1, processors // threads)
        self._workers = Workers(count, self._mailbox)
        self._spared = max(1, count - 1) if count * threads >= processors else count
        self._native = NativeWorkers(count, SPIN_US)
        self._collecting = False
        order = LockOrder() if checks else None
        self.blocking = BlockingPool(config.blocking_threads or 4 * processors + 4, config.queue_limit, self._mailbox, order)
        self._queue = DeadlineQueue(config.queue_limit)
        self._records = Records(config.record, config.max_batch)
        self._offload_ns = config.offload_us * 1000
        self._delay_ns = config.max_delay_us * 1000
        self._numbers = itertools.count()
        self._crowd = CROWD if self._joinable and self._delay_ns else 0
        self._direct_end = self._turn_begin = 0
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._away: collections.deque[Batch] = collections.deque()  # handed to workers and not yet done
        self._admission = Admission(self._queue, self._away)
        self._load = LoopLoad()
        self.active = 0
        self.closing = False
        self.closed = False  # `closing` lets pass what was accepted before; this does not
        self._drained: asyncio.Future[None] | None = None
        self.counts = {"refused_overload": 0, "missed": 0, "cancelled": 0, "batches": 0}
        self._direct_count = self._queued_count = 0
        # The quick way needs one input, and these at hand.
        self._only, self._by_shape, self._entries = self._lanes.only, self._lanes.by_shape, self._queue.entries
        self._record = self._records.add
        self._join_ns = JOIN_NS if self._joinable else FOREVER_NS
        self.watchdog = Watchdog(self, self.loop, config.stall_ms) if config.stall_ms else None

    async def submit(self, inputs: Any, deadline: float | None, priority: int, prepare: Callback | None, finish: Callback | None) -> Any:
        """See `Engine.submit`."""
        begin = clock()
        if deadline is not None or priority != 0:
            deadline, priority = checked(deadline, priority)
        if prepare is None and finish is None and self._crowd <= 0 and not self._entries and not self.closing:
            # The way of a request that comes alone: nothing is looked up twice, nothing is made but what is returned.
            try:
                shape = self._by_shape[inputs[self._only].shape]
            except (KeyError, TypeError, AttributeError, IndexError):
                shape = None
            expected = shape.alone_ns if shape is not None else 0
            gap = begin - self._direct_end
            if (
                shape is not None
                and 0 < expected <= self._offload_ns
                and (gap > COMPANY_NS or expected < self._join_ns)
                and (deadline is None or expected < deadline * 1e9)
            ):
                answer = self._run(inputs)
                self._direct_end = end = clock()
                took = end - begin
                shape.alone_ns = expected + (took - expected >> (1 if took < expected else 3))
                self._record(took)
                self._direct_count += 1
                self._callables.plain += 1
                if gap > COMPANY_NS:
                    self._turn_begin = begin
                elif end - self._turn_begin > TURN_NS:
                    self._turn_begin = end
                    await asyncio.sleep(0)
                return answer
        if self.closing:
            raise SchedulerError("the engine is closing; send the request to another engine")
        due = NEVER if deadline is None else begin + int(deadline * 1e9)
        self.active += 1
        try:
            blocking = lock = 0
            if prepare is not None:
                inputs, blocking, lock = await self._blocked(prepare, inputs, due)
                if self.closed:  # the threads have ended: nobody would run the kernel
                    raise SchedulerError("the engine was closed while the request's blocking call ran; use aclose to let it end")
            outputs: Any = None
            if (not self._queue and self._crowd <= 0) or self._config.mode == "inline":
                outputs = self._direct(inputs, due, begin, blocking, lock)
            if outputs is not None and self._direct_end - self._turn_begin > TURN_NS:
                self._turn_begin = self._direct_end
                await asyncio.sleep(0)
            if outputs is None:
                outputs = await self._queued(inputs, due, priority, begin, blocking, lock)
            if finish is not None:
                outputs, more, _ = await self._blocked(finish, outputs, due)
                blocking += more
            if prepare is None and finish is None:
                self._callables.plain += 1
            else:
                self._callables.blocking += 1
            return outputs
        finally:
            self.active -= 1
            if self._drained is not None and not self.active and not self._drained.done():
                self._drained.set_result(None)

    async def drain(self) -> None:
        """Refuse new requests and wait until those that were accepted are answered."""
        self.closing = True
        if self.active:
            self._wake()  # no company comes any more
            if self._drained is None:
                self._drained = self.loop.create_future()
            await self._drained

    def close(self) -> None:
        """Refuse new requests, answer what waits in the queue now, on this thread, and end the threads. Nobody waits for blocking calls."""
        self.closing = self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._queue and not self.loop.is_closed():
            lane = self._queue.head().lane
            batch = Batch(self._queue.take(lane, lane.most), self._run, clock())
            batch.execute(keep_gil=False)
            self._complete(batch)
        self._workers.close()
        self._native.close()
        if not self.loop.is_closed():
            self._mailbox.drain()
            self._collect()
            if self._collecting:
                self.loop.remove_reader(self._native.descriptor)
                self._collecting = False
        self.blocking.close()
        if self.watchdog is not None:
            self.watchdog.stop()

    def close_from_any_thread(self) -> None:
        """`close` on the loop's own thread where the loop runs, else here. In a forked child only what is the child's own is let go."""
        if os.getpid() != self._process:
            self._leave_to_parent()
            return
        if not self.loop.is_running() or threading.get_ident() == self._thread:
            self.close()
            return
        done = threading.Event()

        def close() -> None:
            try:
                self.close()
            finally:
                done.set()

        try:
            self.loop.call_soon_threadsafe(close)
        except RuntimeError:  # it ended just now
            self.close()
            return
        while not done.wait(LOOK_S):
            if not self.loop.is_running():  # it ended before it came to it
                self.close()
                return

    def _leave_to_parent(self) -> None:
        """After a fork: the loop and the threads are the parent's, and locks that those held are never released here."""
        self.closing = self.closed = True
        self._workers.leave()
        self.blocking.leave()

    def statistics(self) -> dict[str, Any]:
        """Mode, counts since the first request, what waits now, and the waits of the latest requests by stage."""
        return {
            **self._callables.statistics(),
            "accepted": self._direct_count + self._queued_count,
            "direct": self._direct_count,
            "refused_deadline": self._admission.refused,
            **self.counts,
            "waiting": len(self._queue),
            "active": self.active,
            "workers": self._workers.count,
            "blocking_pool": self.blocking.statistics(),
            "waits": self._records.summary(),
            "watchdog": self.watchdog.statistics() if self.watchdog is not None else {},
        }

    def jobs(self) -> list[Job]:
        """Calls of threads that know Python, and run now."""
        return [*self._workers.running]

    def batches(self) -> list[Batch]:
        """Calls that native workers run or are about to."""
        return [*self._native.running()]

    # --- the blocking part of a request

    async def _blocked(self, function: Callback, argument: Any, due: int) -> tuple[Any, int, int]:
        """The callable's value, the ns that it took, and the ns that its thread waited for a lock."""
        now, callee = clock(), self._callables.of(function)
        if now + callee.took_ns > due and not callee.doubt.lets_through(now, due):
            self._admission.refused += 1
            left = time_left(due - now)
            raise DeadlineError(f"the blocking call is expected to take {callee.took_ns / 1e6:.2f} ms, {left}; allow more time")
        if not callee.leaves(now):
            return *callee.run(function, argument), 0
        limit = self._config.blocking_timeout_ms * 1_000_000
        call = await self.blocking.call(function, argument, max(1, min(limit, due - now)), due - now < limit)
        took = call.ended_ns - call.begun_ns
        callee.observe(took)
        return call.future.result(), took, call.lock_ns

    # --- a request alone

    def _direct(self, inputs: Any, due: int, begin: int, blocking: int, lock: int) -> dict[str, Any] | None:
        """The outputs, computed here and now, or `None` where the request has to be queued."""
        shape = self._lanes.find(inputs)
        expected = shape.expected_ns
        inline = self._config.mode == "inline"
        if (expected > self._offload_ns or not shape.known) and not inline:
            return None
        start = clock()
        if start - self._direct_end < COMPANY_NS:
            if shape.lane.joins and expected >= self._join_ns and not inline:
                self._crowd = CROWD
                return None
        else:
            self._turn_begin = start
        if start + expected > due and not shape.lane.doubt.lets_through(start, due):
            self._admission.refuse(expected, due - start, start)
        self._direct_count += 1
        outputs = self._run(inputs)
        self._direct_end = end = clock()
        shape.observe(end - start)
        shape.lane.doubt.settle()
        self._record((0, lock, 0, 0, end - start, blocking, end - begin, 1, 100 // self._config.max_batch))
        return outputs

    # --- a request in the queue

    async def _queued(self, inputs: Any, due: int, priority: int, begin: int, blocking: int, lock: int) -> dict[str, Any]:
        shape = self._lanes.find(inputs)
        now, key = clock(), key_of(priority, due, next(self._numbers))
        # Before anything is made for it: under an overload most requests are refused.
        predicted = self._admission.admit(shape.lane, shape.rows, key, now, self._workers.count) if due != NEVER else 0
        request = Request(self._lanes.arrays(inputs, shape.lane), shape, key, now, self.loop.create_future())
        request.predicted_ns = predicted
        try:
            self._queue.push(request)
        except SchedulerError:
            self.counts["refused_overload"] += 1
            raise
        self._queued_count += 1
        if not self._flushing:
            self._wake()
        try:
            outputs, batch = await request.future
        except asyncio.CancelledError:
            self.counts["cancelled"] += 1
            self._queue.discard(request)
            raise
        done = clock()
        self._record(
            (
                batch.start_ns - request.enqueued_ns,
                lock,
                batch.handoff_ns,
                batch.gil_ns,
                batch.kernel_ns,
                blocking,
                done - begin,
                batch.size,
                batch.size * 100 // self._config.max_batch,
            )
        )
        answers: dict[str, Any] = outputs
        return answers

    # --- batches

    def _wake(self) -> None:
        if not self._flushing:
            self._flushing = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Start what can be started: on the loop one batch a turn, so that answers go out between them; beside it as many as fit."""
        self._flushing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue = self._queue
        while queue:
            head, now = queue.head(), clock()
            lane = head.lane
            count = self._count(head, now)
            if not count:
                return
            offloaded = self._offloads(lane, count * head.rows)
            if offloaded and len(self._away) >= self._room(now):
                return
            requests = self._timely(queue.take(lane, count), now)
            self._admission.pace.started(now, count, bool(queue))
            if not requests:
                continue
            if self._joinable:
                self._crowd = CROWD if len(requests) > 1 or self._delay_ns else self._crowd - 1
            batch = Batch(requests, self._run, now)
            self.counts["batches"] += 1
            if not offloaded:
                batch.execute(keep_gil=lane.durations.predict(batch.rows) < RELEASE_GIL_NS)
                self._complete(batch)
                if queue:
                    self._wake()
                return
            self._hand(batch, now)

    def _count(self, head: Request, now: int) -> int:
        """How many requests to join now; 0 where the head still waits for company, and somebody will wake us."""
        lane, most = head.lane, head.lane.most
        if most == 1:
            return 1
        waiting = min(lane.waiting, most)
        if waiting == most or self.closing or not (self._delay_ns or self._config.preferred_batches):
            return waiting
        preferred = [size for size in self._config.preferred_batches if size <= waiting]
        if preferred:
            return max(preferred)
        # The oldest request's patience ends it, and so does the head's deadline.
        latest = head.due_ns - 2 * lane.durations.predict(waiting * head.rows) - self._admission.pace.margin_ns(now)
        until = min(self._queue.oldest_ns(lane) + self._delay_ns, latest)
        if now >= until:
            return waiting
        if until - now > SPIN_NS:
            self._timer = self.loop.call_later((until - now - SPIN_NS) / 1e9, self._flush)
        else:
            self._wake()
        return 0

    def _offloads(self, lane: Lane, rows: int) -> bool:
        return not lane.durations.known or lane.durations.predict(rows) > self._offload_ns

    def _room(self, now: int) -> int:
        """Batches that may be with the workers: under a backlog one more each, so that none waits for the loop's next turn."""
        deep = len(self._queue) >= self._config.max_batch + len(self._away)
        return self._active_workers(now) * (2 if deep else 1)

    def _active_workers(self, now: int) -> int:
        """All, but one less where the loop is busy refusing: it would wait for some 4 ms each time that a worker has its processor."""
        return self._spared if self._admission.overloaded(now) and self._load.look(now) else self._workers.count

    def _timely(self, requests: list[Request], now: int) -> list[Request]:
        """Without those that nobody waits for, and those whose deadline has passed: they get their error."""
        timely = []
        for request in requests:
            if request.future.done():
                continue
            if now > request.due_ns:
                self.counts["missed"] += 1
                late = (now - request.due_ns) / 1e6
                request.future.set_exception(
                    DeadlineError(f"the deadline passed {late:.2f} ms ago while the request waited; allow more time or send fewer requests")
                )
                continue
            timely.append(request)
        return timely

    def _hand(self, batch: Batch, now: int) -> None:
        try:
            batch.gather()
        except Exception as error:
            batch.called(batch.handed_ns, batch.handed_ns, error)
            self._complete(batch)
            return
        self._away.append(batch)
        if batch.table is not None and self._native.hand(batch.table, batch, self._active_workers(now)):
            if not self._collecting:
                self.loop.add_reader(self._native.descriptor, self._collect)
                self._collecting = True
            return
        self._workers.hand(Job(batch.call, lambda job: self._done(batch, job)))

    def _done(self, batch: Batch, job: Job) -> None:
        self._workers.running.discard(job)
        self._away.remove(batch)
        batch.called(job.begun_ns, job.ended_ns, job.error)
        self._complete(batch)
        if self._queue:
            self._wake()

    def _collect(self) -> None:
        """Native workers have ended calls."""
        for done in self._native.collect():
            self._away.remove(done.tag)
            error = CompiledCodeError("the compiled program reported a failure of its own") if done.status else None
            done.tag.called(done.begun_ns, done.ended_ns, error, stamped=False)
            self._complete(done.tag)
        if self._queue:
            self._flush()

    def _complete(self, batch: Batch) -> None:
        """Answer every request of the batch that is still waited for."""
        try:
            answers = batch.answers()
        except Exception as error:  # no memory for the outputs, say: without an answer every request of the batch would wait for ever
            answers = [error] * batch.size
        done = clock()
        batch.handoff_ns += done - batch.ended_ns - batch.gil_ns
        self._admission.pace.answered(batch.ended_ns, done)  # the loop's own lateness
        lane = batch.requests[0].shape.lane
        lane.durations.observe(batch.rows, batch.kernel_ns)
        lane.doubt.settle()
        if batch.size == 1:
            batch.requests[0].shape.observe(batch.kernel_ns)
        for request, answer in zip(batch.requests, answers, strict=True):
            if request.predicted_ns:
                self._admission.pace.answered(request.predicted_ns, done)
            if request.future.done():
                continue
            if isinstance(answer, BaseException):
                request.future.set_exception(answer)
            else:
                request.future.set_result((answer, batch))
