"""Memory and contention over time: a thread that looks ten times a second at the process and at the engine's pool.

How late the thread itself gets to run tells of the GIL: what of it was not waiting for a processor, it waited for another Python thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from openinfer.profiles import process
from openinfer.profiles.profile_record import Row

from openinfer.memory.pool import PoolStatistics

EVERY_S = 0.1
POOL = ("held_bytes", "leased_bytes", "internal_fragmentation", "external_fragmentation", "misses")


class Sampler:
    """Starts with `start`, ends with `stop`; `rows` are then complete. `pool` gives the statistics of a memory pool, or `None`."""

    def __init__(self, name: str, pool: Callable[[], PoolStatistics | None] | None = None, every_s: float = EVERY_S) -> None:
        self.rows: list[Row] = []
        self.spent_ns = 0
        self._process, self._pool, self._every_s = name, pool, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="openinfer-profile", daemon=True)
        self._last = process.sample()

    def start(self) -> None:
        """Begin to look."""
        self._last = process.sample()
        self._thread.start()

    def stop(self) -> None:
        """One last look, then no more."""
        self._stop.set()
        self._thread.join()
        self.look()

    def look(self, late_ns: int = -1) -> None:
        """One look; `late_ns` is how long after its time it comes."""
        begin = time.thread_time_ns()
        now, before = process.sample(), self._last
        passed, self._last = now.at_ns - before.at_ns, now
        if passed < self._every_s * 1e9 / 2:
            return  # the last look, too soon after the one before for a rate
        self._add("memory", "resident", now.at_ns, now.resident_bytes, "bytes")
        self._add("contention", "run queue", now.at_ns, (now.waited_ns - before.waited_ns) / max(1, passed), "share")
        self._add(
            "contention", "forced switches", now.at_ns, 1e9 * (now.forced_switches - before.forced_switches) / max(1, passed), "per s"
        )
        if late_ns >= 0:
            self._add("contention", "GIL", now.at_ns, late_ns, "ns")
        pool = self._pool() if self._pool is not None else None
        if pool is not None:
            for name in POOL:
                unit = "bytes" if name.endswith("bytes") else "share" if name.endswith("fragmentation") else "count"
                self._add("memory", name, now.at_ns, getattr(pool, name), unit)
        self.spent_ns += time.thread_time_ns() - begin

    def _add(self, instrument: str, name: str, at_ns: int, value: float, unit: str) -> None:
        self.rows.append(Row(self._process, instrument, name, "", at_ns, float(value), unit))

    def _loop(self) -> None:
        due = time.perf_counter()
        while True:
            due += self._every_s
            waited = _own_wait_ns()
            if self._stop.wait(max(0.0, due - time.perf_counter())):
                return
            late_ns = int((time.perf_counter() - due) * 1e9) - (_own_wait_ns() - waited)
            self.look(max(0, late_ns))
            due = max(due, time.perf_counter() - self._every_s)


def _own_wait_ns() -> int:
    """Time that this thread could have run and had no processor; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
