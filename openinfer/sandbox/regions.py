"""Which parts of a ring's data are taken: first fit over a sorted list of gaps. Any thread may take and give back."""

from __future__ import annotations

import bisect
import collections
import threading

from openinfer.errors import MemoryBudgetError
from openinfer.sandbox.ring import ALIGNMENT


class Regions:
    """Free space in [start, stop); offsets and sizes are multiples of a cache line."""

    def __init__(self, start: int, stop: int) -> None:
        self._lock = threading.Lock()
        # A finalizer gives back at any moment, also inside `take` of its own thread: so it only leaves a note, without the lock.
        self._returned: collections.deque[tuple[int, int]] = collections.deque()
        self._gaps = [(start, stop)]
        self.total_bytes = stop - start

    @property
    def free_bytes(self) -> int:
        """Bytes that nobody holds."""
        with self._lock:
            self._collect()
            return sum(stop - start for start, stop in self._gaps)

    def take(self, size_bytes: int) -> int:
        """Offset of `size_bytes` that nobody else holds; `MemoryBudgetError` where no gap is large enough."""
        size = rounded(size_bytes)
        with self._lock:
            self._collect()
            for index, (start, stop) in enumerate(self._gaps):
                if stop - start >= size:
                    self._gaps[index : index + 1] = [(start + size, stop)] if stop - start > size else []
                    return start
            free = sum(stop - start for start, stop in self._gaps)
        raise MemoryBudgetError(
            f"{size} bytes do not fit the {free} that are free of the sandbox's {self.total_bytes} shared bytes; "
            "raise sandbox.shared_mb, or drop bound calls"
        )

    def give_back(self, start: int, size_bytes: int) -> None:
        """Return what `take` gave. Never blocks."""
        self._returned.append((start, start + rounded(size_bytes)))

    def _collect(self) -> None:
        while self._returned:
            start, stop = self._returned.popleft()
            at = bisect.bisect(self._gaps, (start, stop))
            if at < len(self._gaps) and self._gaps[at][0] == stop:
                stop = self._gaps.pop(at)[1]
            if at > 0 and self._gaps[at - 1][1] == start:
                start = self._gaps.pop(at - 1)[0]
                at -= 1
            self._gaps.insert(at, (start, stop))


def rounded(size_bytes: int) -> int:
    """To whole cache lines, at least one."""
    return max(1, -(-size_bytes // ALIGNMENT)) * ALIGNMENT
