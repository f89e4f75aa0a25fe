"""A native thread pool: Python threads that enter a compiled, GIL-free loop once and stay there until the pool closes.

A section runs `program(table, thread, threads)` on every thread, the caller being thread 0. Waking spinning workers costs some 0.2 us,
sleeping ones a futex call each. The words are in `kernels/cpu/control_block.py`, the code in `pool_ir.py`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np

from openinfer.errors import ConfigError
from openinfer.kernels.cpu import control_block as words
from openinfer.machine import host
from openinfer.runtime import entry_native

SECTION_SPIN_US = 50  # within a section the others are on their way: worth a short spin, never an endless one

_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """`threads` native threads, the caller of a section among them. Safe from any thread.

    Put `address` into word 1 of a call's table and 2 or more into word 2: the call then runs on the pool, which starts at the first such
    call, and again in a forked child. Sections do not queue: a call that finds the pool busy (or closed) runs its program alone, as
    `program(table, 0, 1)`, with the same result. Keep the pool alive as long as tables point to it.

    wait="spin" lets idle workers spin for ever, "sleep" for `spin_us` before they sleep; pin="compact" ties worker k to the k-th processor
    of this process (never the caller's thread).
    """

    def __init__(
        self, threads: int, *, wait: Literal["spin", "sleep"] = "sleep", spin_us: int = 50, pin: Literal["none", "compact"] = "none"
    ) -> None:
        if threads < 1 or wait not in ("spin", "sleep") or pin not in ("none", "compact") or spin_us < 0:
            raise ConfigError(
                f"{threads=} {wait=} {spin_us=} {pin=}; allowed: 1 or more threads, wait 'spin' or 'sleep', "
                "spin_us 0 or more, pin 'none' or 'compact'"
            )
        self.threads, self.wait, self.spin_us, self.pin = threads, wait, spin_us, pin
        self._lock = threading.Lock()
        self._closed = False
        self._parked = False
        self._workers: list[threading.Thread] = []
        self._pinned: list[int] = []
        self._start_call = functools.partial(_start, weakref.ref(self))  # no cycle: a dropped pool ends at once
        self._control = _aligned_words(words.WORDS)
        self._control[words.THREADS] = threads
        self._control[words.SPIN_NS] = self._spin_ns()
        self._control[words.SECTION_SPIN_NS] = SECTION_SPIN_US * 1000
        self._control[words.START] = id(self._start_call) if threads > 1 else 0
        self._control[words.BARRIER_CODE] = entry_native.library()["openinfer_barrier"]
        self._finalizer = weakref.finalize(self, _stop, self._control, self._workers)  # also at interpreter exit
        _pools.add(self)

    @property
    def address(self) -> int:
        """Address of the control block, for word 1 of a table."""
        return int(self._control.ctypes.data)

    @property
    def running(self) -> bool:
        """Whether the workers are inside the native loop."""
        return bool(self._control[words.READY])

    def start(self) -> None:
        """Start the workers and wait until all are ready; nothing where they run or the pool is closed. A call does this by itself."""
        with self._lock:
            if self._closed or self.running or self.threads == 1:
                return
            processors: Sequence[int] = host().processors if self.pin == "compact" else ()
            self._pinned.clear()
            try:
                for k in range(1, self.threads):
                    processor = processors[k % len(processors)] if processors else None
                    thread = threading.Thread(
                        target=_serve, args=(self._control, k, processor, self._pinned), name=f"openinfer-pool-{k}", daemon=True
                    )
                    thread.start()
                    self._workers.append(thread)
                self._wait_entered()
            except BaseException:  # no thread left to the process, or an interrupt: the next call may try again
                self._wait_entered()  # a worker that enters after the stop would not see it
                _stop(self._control, self._workers)
                raise
            self._control[words.READY] = 1

    def park(self) -> None:
        """Idle workers stop spinning and sleep, so that an idle engine uses no processor; sections still work, and cost a wake-up."""
        self._parked = True
        self._control[words.SPIN_NS] = 0

    def unpark(self) -> None:
        """Undo `park`."""
        self._parked = False
        self._control[words.SPIN_NS] = self._spin_ns()
        _native("openinfer_wake")(self.address)

    def close(self) -> None:
        """Wait for the running section, end the workers and join them. Later calls run on their caller's thread alone."""
        with self._lock:
            self._closed = True
            self._control[words.START] = 0
            _stop(self._control, self._workers)

    def statistics(self) -> dict[str, Any]:
        """Counts since the pool was made. `alone`: calls that ran on one thread because the pool was busy, starting or closed."""
        return {
            "threads": self.threads,
            "running": self.running,
            "parked": self._parked,
            "pinned": tuple(sorted(self._pinned)),
            "sections": int(self._control[words.SECTIONS]),
            "alone": int(self._control[words.ALONE]),
            "asleep": int(self._control[words.SLEEPERS]),
        }

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _wait_entered(self) -> None:
        while self._control[words.ENTERED] < sum(thread.is_alive() for thread in self._workers):
            time.sleep(20e-6)

    def _spin_ns(self) -> int:
        return -1 if self.wait == "spin" else self.spin_us * 1000

    def _forget_threads(self) -> None:
        """In a forked child: the workers are gone, and the words may show a section of the parent's."""
        self._lock = threading.Lock()
        self._workers.clear()
        for word in (
            words.READY,
            words.SLEEPERS,
            words.STATUS,
            words.DONE_SLEEPERS,
            words.LOCK,
            words.ENTERED,
            words.ARRIVED,
            words.BARRIER_SLEEPERS,
        ):
            self._control[word] = 0
        self._control[words.TARGET] = self._control[words.DONE]


def _start(pool: weakref.ref[Pool]) -> None:
    alive = pool()
    if alive is not None:
        alive.start()


def _serve(control: np.ndarray, thread: int, processor: int | None, pinned: list[int]) -> None:
    """A worker's life. It holds the control block, never the pool, so that a dropped pool can end it."""
    if processor is not None and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, {processor})
            pinned.append(processor)
        except OSError:  # a container may refuse; the statistics then show no pin
            pinned.clear()
    _native("openinfer_worker", ctypes.c_int64)(control.ctypes.data, thread)


def _stop(control: np.ndarray, workers: list[threading.Thread]) -> None:
    if not workers:
        return
    _native("openinfer_stop")(control.ctypes.data)
    for thread in workers:
        thread.join()
    workers.clear()


def _native(symbol: str, *arguments: Any) -> Any:
    """A native function over a control block; ctypes releases the GIL around it."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, *arguments)(entry_native.library()[symbol])


def _aligned_words(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    storage = np.zeros(count + 7, np.int64)
    skip = -(storage.ctypes.data // 8) % 8
    return storage[skip : skip + count]


def _after_fork_in_child() -> None:
    for pool in list(_pools):
        pool._forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
