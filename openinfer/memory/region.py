"""Stretches of address space from the operating system, whose pages it takes back one by one."""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import Protocol

import numpy as np

from openinfer.ir.graph import Array
from openinfer.memory.size_classes import PAGE

HUGE_PAGE = 2 << 20


class Region(Protocol):
    """`size_bytes` of address space; nothing of it is resident until it is touched."""

    size_bytes: int

    def view(self, offset: int, size_bytes: int) -> Array:
        """The bytes from `offset` on as uint8."""

    def purge(self, offset: int, size_bytes: int) -> None:
        """Give whole pages back; they read as zeros afterwards."""

    def resident_bytes(self) -> int:
        """Bytes that are in memory now."""


class MappedRegion:
    """Private anonymous memory. It is unmapped when neither the region nor a view of it is referenced any more."""

    def __init__(self, size_bytes: int, huge_pages: bool = False) -> None:
        self.size_bytes = size_bytes
        slack = HUGE_PAGE if huge_pages else 0
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, size_bytes + slack, flags=flags)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # Said either way: where the system gives huge pages to all, a purge would not return what it counts.
            self._map.madvise(mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE)
        whole = np.frombuffer(self._map, np.uint8)
        self._start = -whole.ctypes.data % HUGE_PAGE if huge_pages else 0
        self._bytes = whole[self._start : self._start + size_bytes]

    def view(self, offset: int, size_bytes: int) -> Array:
        """The bytes from `offset` on as uint8."""
        return self._bytes[offset : offset + size_bytes]

    def purge(self, offset: int, size_bytes: int) -> None:
        """Give whole pages back; they read as zeros afterwards."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, self._start + offset, size_bytes)

    def resident_bytes(self) -> int:
        """Bytes that are in memory now; all of them where the system does not tell."""
        ask = _mincore()
        if ask is None:
            return self.size_bytes
        pages = np.zeros(-(-self.size_bytes // PAGE), np.uint8)
        if ask(self._bytes.ctypes.data, self.size_bytes, pages.ctypes.data):
            return self.size_bytes
        return int(np.count_nonzero(pages & 1)) * PAGE


class UnmappedRegion:
    """Address space with nothing behind it, for replays: only `size_bytes` is real."""

    def __init__(self, size_bytes: int, huge_pages: bool = False) -> None:
        self.size_bytes = size_bytes

    def view(self, offset: int, size_bytes: int) -> Array:
        """An empty array: there are no bytes."""
        return _NOTHING

    def purge(self, offset: int, size_bytes: int) -> None:
        """Nothing to give back."""

    def resident_bytes(self) -> int:
        """Nothing is in memory."""
        return 0


_NOTHING = np.empty(0, np.uint8)


@functools.cache
def _mincore() -> ctypes._NamedFuncPointer | None:
    try:
        ask = ctypes.CDLL(None).mincore
    except (OSError, AttributeError):
        return None
    ask.restype, ask.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    return ask
