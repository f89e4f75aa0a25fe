"""Aligned memory for arenas and weights, on huge pages where asked."""

from __future__ import annotations

import math
import mmap

import numpy as np

from openinfer.ir.graph import Array

HUGE_PAGE = 2 << 20


def allocate(size_bytes: int, alignment: int = 64, huge_pages: bool = False) -> Array:
    """`size_bytes` of uint8 whose address is a multiple of `alignment`; the array owns the memory. Huge pages are advice to the kernel."""
    if huge_pages and size_bytes and hasattr(mmap, "MADV_HUGEPAGE"):
        length = -(-size_bytes // HUGE_PAGE) * HUGE_PAGE + HUGE_PAGE
        region = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # shared memory gets none
        region.madvise(mmap.MADV_HUGEPAGE)
        raw, alignment = np.frombuffer(region, np.uint8), HUGE_PAGE
    else:
        raw = np.empty(size_bytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size_bytes]


def empty(shape: tuple[int, ...], dtype: str) -> Array:
    """An uninitialised array that begins on a cache line."""
    size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    return allocate(max(size_bytes, 1))[:size_bytes].view(dtype).reshape(shape)


def aligned_copy(array: Array, alignment: int = 64, huge_pages: bool = False) -> Array:
    """A C-contiguous copy of `array` on an aligned address."""
    flat = np.ascontiguousarray(array)
    place = allocate(max(flat.nbytes, 1), alignment, huge_pages)[: flat.nbytes]
    copy = place.view(flat.dtype).reshape(array.shape)
    copy[...] = array
    return copy
