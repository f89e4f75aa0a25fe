"""Threads that run kernels beside the loop. They hold the GIL only to take a job and to say that it is done."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable

from openinfer.errors import SchedulerError
from openinfer.scheduler.mailbox import Mailbox

clock = time.perf_counter_ns


class Job:
    """One call for a worker. Set by the worker: when it began and ended, in ns, and what it raised."""

    __slots__ = ("begun_ns", "call", "done", "ended_ns", "error", "named", "thread")

    def __init__(self, call: Callable[[], object], done: Callable[[Job], None]) -> None:
        self.call, self.done = call, done
        self.begun_ns = self.ended_ns = 0
        self.thread = 0
        self.named = False
        self.error: BaseException | None = None

    def finished(self) -> None:
        """On the loop: tell whoever asked."""
        self.done(self)


class Workers:
    """`count` threads, started at the first job, that take jobs in the order given. Belongs to the loop's thread."""

    def __init__(self, count: int, mailbox: Mailbox) -> None:
        self.count = count
        self.running: set[Job] = set()
        self._mailbox = mailbox
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._stop = weakref.finalize(self, _stop, self._jobs, count)

    def hand(self, job: Job) -> None:
        """Run the job on the next free thread; `job.done` is called on the loop afterwards. `SchedulerError` after `close`."""
        if not self._stop.alive:
            raise SchedulerError("found a call for the workers of a closed engine; load the model again")
        while len(self._threads) < self.count:
            name = f"openinfer-kernels-{len(self._threads)}"
            thread = threading.Thread(target=_serve, args=(self._jobs, self._mailbox), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self.running.add(job)
        self._jobs.put(job)

    def close(self) -> None:
        """End the threads once they have done what was handed to them, and wait for that."""
        self._stop()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def leave(self) -> None:
        """In a forked child, where the threads do not exist: forget them."""
        self._stop.detach()
        self._threads.clear()


def _serve(jobs: queue.SimpleQueue[Job | None], mailbox: Mailbox) -> None:
    while (job := jobs.get()) is not None:
        job.thread = threading.get_ident()
        job.begun_ns = clock()
        try:
            job.call()
        except BaseException as error:  # it belongs to the request, and the thread has to go on
            job.error = error
        job.ended_ns = clock()
        mailbox.post(job.finished)
        del job  # a request's arrays live no longer than the request


def _stop(jobs: queue.SimpleQueue[Job | None], count: int) -> None:
    for _ in range(count):
        jobs.put(None)
