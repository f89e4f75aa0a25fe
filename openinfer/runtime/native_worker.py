"""Threads that run whole calls beside Python: they enter compiled code once and never ask for the GIL while they work.

A Python thread that waits for a job needs the GIL to take it, to start it and to say that it is done, and beside a busy event loop each of
the three may cost the interpreter's switch interval of 5 ms. These take tables from a ring and write to a file descriptor.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from openinfer.runtime import entry_native
from openinfer.runtime import native_worker_ir as words

Words = np.ndarray[Any, np.dtype[np.int64]]


@dataclasses.dataclass(frozen=True)
class Completed:
    """A call that has ended: what was handed in with it, its begin and end in ns (`time.perf_counter_ns`), 0 or the program's failure."""

    tag: Any
    begun_ns: int
    ended_ns: int
    status: int


class NativeWorkers:
    """`count` threads, started at the first call. `descriptor` becomes readable when a call has ended. One thread hands and collects."""

    def __init__(self, count: int, spin_us: int) -> None:
        self.count = count
        self.descriptor, self._notify = _channel()
        self._rings = [_Ring(spin_us, self._notify) for _ in range(count)]
        self._threads: list[threading.Thread] = []
        self._finalizer = weakref.finalize(self, _end, self._rings, self._threads, {self.descriptor, self._notify})

    def outstanding(self) -> int:
        """Calls handed in and not collected."""
        return sum(len(ring.tags) for ring in self._rings)

    def running(self) -> Iterator[Any]:
        """What was handed in with the calls that are not collected."""
        for ring in self._rings:
            yield from list(ring.tags)

    def hand(self, table: Words, tag: Any, among: int | None = None) -> bool:
        """Run the table's program on the least loaded of the first `among` threads; False where all their rings are full. The caller keeps
        the table alive.
        """
        ring = min(self._rings[:among], key=lambda each: len(each.tags))
        if len(ring.tags) >= words.SLOTS - 1:  # one is kept for the word that ends the thread
            return False
        if not self._threads:
            self._start()
        ring.tags.append(tag)
        _hand()(ring.address, table.ctypes.data)
        return True

    def collect(self) -> list[Completed]:
        """The calls that have ended since the last time, those of one thread in order."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 8)
        found: list[Completed] = []
        for ring in self._rings:
            found.extend(ring.collect())
        return found

    def close(self) -> None:
        """End the threads once they have done what was handed in; collect afterwards what they did."""
        _stop(self._rings, self._threads)

    def _start(self) -> None:
        for number, ring in enumerate(self._rings):
            thread = threading.Thread(target=_serve, args=(ring.control,), name=f"openinfer-worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)


class _Ring:
    def __init__(self, spin_us: int, notify: int) -> None:
        self.control = _aligned(words.CONTROL_WORDS)
        self.control[words.SPIN_NS] = spin_us * 1000
        self.control[words.NOTIFY] = notify
        self.address = int(self.control.ctypes.data)
        self.tags: list[Any] = []
        self._collected = 0

    def collect(self) -> Iterator[Completed]:
        completed = int(self.control[words.COMPLETED])
        while self._collected < completed:
            at = words.FIRST_SLOT + self._collected % words.SLOTS * words.SLOT_WORDS
            slot = self.control[at : at + words.SLOT_WORDS].tolist()
            self._collected += 1
            yield Completed(self.tags.pop(0), slot[words.SLOT_BEGUN], slot[words.SLOT_ENDED], slot[words.SLOT_STATUS])


@functools.cache
def _hand() -> Callable[[int, int], None]:
    # With the GIL: it takes less than giving it up.
    function: Callable[[int, int], None] = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(
        entry_native.library()["openinfer_hand"]
    )
    return function


def _serve(control: Words) -> None:
    """A thread's life. It holds the control block, never the workers, so that dropped workers end."""
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(entry_native.library()["openinfer_serve"])(control.ctypes.data)


def _stop(rings: list[_Ring], threads: list[threading.Thread]) -> None:
    if threads:
        for ring in rings:
            _hand()(ring.address, 0)
        for thread in threads:
            thread.join()
        threads.clear()


def _end(rings: list[_Ring], threads: list[threading.Thread], descriptors: set[int]) -> None:
    _stop(rings, threads)
    for descriptor in descriptors:
        os.close(descriptor)


def _channel() -> tuple[int, int]:
    """(readable, writable) ends: one descriptor for both where the system has event counters, else a pipe."""
    if hasattr(os, "eventfd"):
        counter = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        return counter, counter
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return reader, writer


def _aligned(count: int) -> Words:
    storage = np.zeros(count + 16, np.int64)
    skip = -(storage.ctypes.data // 8) % 16
    return storage[skip : skip + count]
