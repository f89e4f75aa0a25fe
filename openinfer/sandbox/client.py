"""The parent's side of a sandbox: posts calls into the ring, waits for answers, and replaces a worker that died, hung or took too much.

A thread of its own watches the worker. When the worker ends, the request that it was answering fails with `SandboxError`; requests that it
had not begun are posted again to its successor, once. Nothing that the worker writes is used before it has been copied and checked.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import logging
import os
import queue
import select
import signal
import threading
import time
import weakref
from collections.abc import Sequence

from openinfer.config import SandboxConfig
from openinfer.errors import OpenInferError, SandboxError
from openinfer.sandbox import native, ring
from openinfer.sandbox.host import Source
from openinfer.sandbox.ring import (
    CALL,
    DONE,
    FAILED,
    LINE,
    LOST,
    POSTED,
    POSTED_WAITERS,
    QUEUE,
    QUEUED,
    SLOTS,
    STATE,
    STATES,
    TAKEN,
    UNKNOWN_CALL,
    WAITERS,
)
from openinfer.sandbox.template import WALLS
from openinfer.sandbox.workers import Workers

log = logging.getLogger("openinfer")

_CALL_AGAIN = "load the model again"
_EARLY_NS = 200_000  # how long before its end a long request is woken for: the kernel may be 50 µs late with a timer, and a core 50 to wake
_ANSWERED = (DONE, UNKNOWN_CALL, FAILED)

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Ticket:
    """A slot of the ring while one request is in it."""

    __slots__ = ("call_at", "failure", "held", "holds", "index", "number", "restarts", "state", "state_at", "taken_at", "waiters")

    def __init__(self, index: int, shared: ring.Ring) -> None:
        base = STATES + index * LINE
        self.index = index
        self.state_at, self.call_at, self.taken_at = base + STATE, base + CALL, base + TAKEN
        self.state, self.waiters = shared.word(base + STATE), shared.word(base + WAITERS)
        self.failure: OpenInferError | None = None
        self.held = False
        self.number = 0
        self.restarts = 0
        self.holds: object = None


class Client:
    """A sandbox with one worker. Any number of threads may post; the worker answers one request after another."""

    def __init__(self, source: Source, knobs: SandboxConfig) -> None:
        self.knobs = knobs
        self._timeout_ns, self._spin_ns = knobs.timeout_ms * 1_000_000, knobs.spin_us * 1000
        self._wait, self._post = native.wait(), native.post()
        descriptor, self.ring = ring.create(knobs.shared_mb << 20)
        self._words = self.ring.words
        self._posted_at, self._posted_waiters = self.ring.word(POSTED), self.ring.word(POSTED_WAITERS)
        self._lock = threading.Lock()
        self._changed = threading.Condition()  # another worker is at work
        self._several = threading.Lock()  # two that each hold some slots and wait for more would wait for ever
        self._tickets: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
        for index in range(SLOTS):
            self._tickets.put(Ticket(index, self.ring))
        self._flight: dict[int, Ticket] = {}  # in the order of posting
        self._abandoned: collections.deque[Ticket] = collections.deque()
        self._posted = 0
        self._progress_ns = 0
        self._hung = self._overran = self._spared = False
        self._failure: str | None = None
        self.replaced, self.requests, self.restore_ns = 0, 0, 0
        self.last_end = ""  # how the last worker ended: a signal's name, "hung", "memory", "exit"
        self.numbers = itertools.count()  # of bound calls
        try:
            self._workers = Workers(source, knobs, self.ring, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self.description = self._workers.description
        wake_out, wake = os.pipe()
        # The watcher closes what it watches, and the workers, once it is woken: nothing is closed under its eyes.
        self._finalizer = weakref.finalize(self, _wake, os.getpid(), wake)
        watcher = threading.Thread(
            target=_watch, args=(weakref.ref(self), self._workers, wake_out, descriptor), name="openinfer-sandbox", daemon=True
        )
        watcher.start()
        self._watcher = watcher
        _clients.add(self)

    def begin(self, calls: Sequence[tuple[int, object]]) -> list[Ticket]:
        """Post requests, in one crossing: each a call's number (-1: what its message says) and what must live as long as it is under way.

        At most half of `SLOTS` at once. Blocks while other threads hold all slots; whoever holds one must not ask for more.
        """
        if len(calls) == 1:
            tickets = [self.ticket()]
        else:
            with self._several:
                tickets = [self.ticket() for _ in calls]
        try:
            self.post(tickets, calls)
        except BaseException:
            for ticket in tickets:
                self.release(ticket)
            raise
        return tickets

    def post(self, tickets: Sequence[Ticket], calls: Sequence[tuple[int, object]]) -> None:
        """Post slots that `ticket` gave."""
        with self._lock:
            if self._failure is not None:
                raise SandboxError(f"{self._failure}; {_CALL_AGAIN}")
            if not self._flight:
                self._progress_ns = time.monotonic_ns()
            for ticket, (number, holds) in zip(tickets, calls, strict=True):
                ticket.number, ticket.holds = number, holds
                self._enqueue(ticket)
            self.requests += len(tickets)
            self._post(self._posted_at, self._posted, self._posted_waiters)

    def announce(self) -> None:
        """Wake a worker that sleeps: a request is about to be posted, and what it carries is copied while the worker's core wakes."""
        if self._words[POSTED_WAITERS]:
            with self._lock:
                self._post(self._posted_at, self._posted, self._posted_waiters)

    def finish(self, ticket: Ticket, typical_ns: int = 0) -> int:
        """Wait for one request: DONE, FAILED or UNKNOWN_CALL, as the worker says. `SandboxError` where the worker was lost. The slot, and
        with it the message, stays the caller's until `release`; where the waiting is interrupted it is abandoned. A request that typically
        takes long is slept through until shortly before its end.
        """
        words, wait, spin = self._words, self._wait, self._spin_ns
        early = max(spin, _EARLY_NS)
        nap = max(0, typical_ns - early) if spin else 0
        try:
            while wait(ticket.state, QUEUED, ticket.waiters, nap, 2 * early if nap else spin, self._timeout_ns):
                self._check_progress()
                nap = 0
        except BaseException:
            self.abandon((ticket,))
            raise
        state = int(words[ticket.state_at])
        with self._lock:
            self._flight.pop(ticket.index, None)
            self._progress_ns = time.monotonic_ns()
        failure, ticket.failure = ticket.failure, None
        if failure is not None:
            raise failure
        return state

    def release(self, ticket: Ticket) -> None:
        """Give a slot back. Nothing where it was given back or abandoned before."""
        if ticket.held:
            ticket.held, ticket.restarts, ticket.holds = False, 0, None
            self._tickets.put(ticket)

    def renew(self, overran: bool = False) -> None:
        """End the worker and have it replaced; `overran`: because it ran out of memory and may not be able to work on."""
        with self._lock:
            self._overran, self._spared = overran, True
            self.last_end = "memory" if overran else "ended"
            self._workers.end_active()

    def widen(self, shapes: Sequence[Sequence[int]]) -> None:
        """Have the model loaded again, compiled for inputs of these shapes too: a locked worker makes no code. Requests under way wait."""
        with self._lock:
            before = self.replaced
            self._spared = True
            self._workers.widen(shapes)
        # The old worker may live a moment longer, and would refuse again.
        with self._changed:
            while self.replaced == before and self._failure is None and self._watcher.is_alive():
                self._changed.wait(1.0)

    def protections(self) -> tuple[str, ...]:
        """What the worker has given up, by name."""
        child = self._workers.active
        return (*(wall for wall in self.description.given_up if wall not in WALLS), *(child.walls if child is not None else ()))

    def close(self) -> None:
        """End the processes; calls under way and later ones fail."""
        with self._lock:
            if self._failure is None:
                self._failure = "the engine is closed"
            self._lose(list(self._flight.values()), self._failure)
        self._finalizer()
        self._watcher.join()

    def abandon(self, tickets: Sequence[Ticket]) -> None:
        """Give slots back once their requests have ended, which nobody waits for."""
        for ticket in tickets:
            ticket.held = False
            self._abandoned.append(ticket)

    def ticket(self) -> Ticket:
        """A free slot, whose message may be written before `post`."""
        for _ in range(len(self._abandoned)):
            with contextlib.suppress(IndexError):
                ticket = self._abandoned.popleft()
                if self._words[ticket.state_at] == QUEUED:
                    self._abandoned.append(ticket)
                    continue
                with self._lock:
                    self._flight.pop(ticket.index, None)
                ticket.failure, ticket.restarts, ticket.holds = None, 0, None
                self._tickets.put(ticket)
        while True:
            try:
                ticket = self._tickets.get(timeout=self._timeout_ns / 1e9)
                ticket.held = True
                return ticket
            except queue.Empty:
                self._check_progress()

    def _enqueue(self, ticket: Ticket) -> None:
        words = self._words
        words[ticket.call_at] = ticket.number
        words[ticket.taken_at] = 0
        words[ticket.state_at] = QUEUED
        words[QUEUE + self._posted % SLOTS] = ticket.index
        self._flight[ticket.index] = ticket
        self._posted += 1

    def _check_progress(self) -> None:
        """Kill a worker that has answered nothing for the time-out."""
        with self._lock:
            if not self._watcher.is_alive():
                raise SandboxError(f"nobody watches the sandbox's worker; {_CALL_AGAIN}")
            if time.monotonic_ns() - self._progress_ns >= self._timeout_ns:
                self._hung = True
                self._progress_ns = time.monotonic_ns()
                self._workers.end_active()

    def _replace(self) -> None:
        """After the worker's end: its successor at work, the request that it was answering failed, the others posted again."""
        begin = time.monotonic_ns()
        with self._lock:
            if self._failure is not None:
                return
            words = self._words
            waiting = [ticket for ticket in self._flight.values() if words[ticket.state_at] not in _ANSWERED]
            guilty = waiting[:1] if waiting and (self._hung or words[waiting[0].taken_at]) else []
            # Whoever is answered while the worker is ended on purpose has not done anything to it.
            lost = [] if self._spared else guilty + [ticket for ticket in waiting if ticket not in guilty and ticket.restarts]
            gone = self._workers.retire()
            self.replaced += 1
            words[POSTED] = self._posted = 0
            try:
                self._workers.succeed()
            except OpenInferError as error:
                self._failure = f"the sandbox's worker could not be replaced: {error}"
                self._lose(waiting, self._failure)
                return
            for ticket in waiting:
                if ticket not in lost:
                    ticket.restarts += not self._spared
                    self._enqueue(ticket)
            self._progress_ns = time.monotonic_ns()
            self._post(self._posted_at, self._posted, self._posted_waiters)
            self.restore_ns = time.monotonic_ns() - begin
            self._lose(lost, self._reason(self._workers.forget(gone)))
            self._hung = self._overran = self._spared = False
        with self._changed:
            self._changed.notify_all()
        log.info("the sandbox's worker ended (%s); it was replaced within %.1f ms", self.last_end, self.restore_ns / 1e6)

    def _lose(self, tickets: Sequence[Ticket], reason: str) -> None:
        for ticket in tickets:
            ticket.failure = SandboxError(reason)
            self._post(ticket.state, LOST, ticket.waiters)

    def _reason(self, ended: int | None) -> str:
        """Why a request failed; notes how the worker ended."""
        if self._hung:
            self.last_end = "hung"
            return (
                f"the sandbox's worker did not answer within {self.knobs.timeout_ms} ms and was ended; raise sandbox.timeout_ms if it may"
            )
        if self._overran:
            self.last_end = "memory"
            return f"the sandbox's worker needed more than {self.knobs.memory_mb} MiB; raise sandbox.memory_mb if it may"
        if ended is None or not os.WIFSIGNALED(ended):
            self.last_end = "exit"
            return "the sandbox's worker ended while it answered; call again"
        number = os.WTERMSIG(ended)
        self.last_end = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        if number == signal.SIGSYS:
            return "the sandbox's worker was ended by the kernel (SIGSYS): it tried a system call that it may not make"
        return f"the sandbox's worker was ended by {self.last_end} while it answered; call again"


def _watch(reference: weakref.ref[Client], workers: Workers, wake: int, ring_fd: int) -> None:
    """Until the client is closed or dropped: keep a spare, wait for a worker's end, have it replaced. Then end everything."""
    try:
        while True:
            workers.restock()
            ends = select.poll()  # not select(), which takes no descriptor above 1,023
            for descriptor in (wake, *workers.descriptors()):
                ends.register(descriptor, select.POLLIN)
            if any(descriptor == wake for descriptor, _ in ends.poll()):
                return
            if workers.lost_spare():
                continue
            client = reference()
            if client is None:
                return
            client._replace()
            if workers.active is None:  # it could not be replaced
                return
            del client
    finally:
        workers.close()
        os.close(wake)
        os.close(ring_fd)


def _wake(owner: int, wake: int) -> None:
    """Let the watcher end; nothing in a forked child, whose parent still uses the sandbox."""
    if os.getpid() == owner:
        with contextlib.suppress(OSError):  # it has ended
            os.write(wake, b"x")
        os.close(wake)


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._lock, client._several = threading.Lock(), threading.Lock()
        client._failure = "the sandbox belongs to the process that this one was forked from"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
