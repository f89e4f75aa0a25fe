"""Copies contiguous bytes: a graph output that is another value under a new name."""

from __future__ import annotations

import functools
from typing import Any

import numba as nb

from openinfer.kernels.cpu.pointers import u8


@functools.cache
def copy(*, block_bytes: int) -> Any:
    """copy(source, destination, size_bytes, low, high): blocks of `block_bytes`."""

    @nb.njit(error_model="numpy")
    def kernel(source: int, destination: int, size_bytes: int, low: int, high: int) -> None:
        first, last = low * block_bytes, min(high * block_bytes, size_bytes)
        read, write = u8(source), u8(destination)
        for i in range(first, last):
            write[i] = read[i]

    return kernel
