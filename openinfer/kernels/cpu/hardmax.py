"""Hardmax along one axis: 1 at the first maximum, 0 elsewhere."""

from __future__ import annotations

import functools
from typing import Any

import numba as nb

from openinfer.kernels.cpu.lines import line_start
from openinfer.kernels.cpu.pointers import POINTERS


@functools.cache
def hardmax(*, dtype: str) -> Any:
    """hardmax(x, y, size, inner, low, high): a block is one line of `size` elements, `inner` elements apart."""
    pointer = POINTERS[dtype]

    @nb.njit(error_model="numpy")
    def kernel(x: int, y: int, size: int, inner: int, low: int, high: int) -> None:
        read, write = pointer(x), pointer(y)
        for line in range(low, high):
            first = line_start(line, size, inner)
            top, index = read[first], 0
            for i in range(1, size):
                value = read[first + i * inner]
                if value > top or (value != value and top == top):
                    top, index = value, i
            for i in range(size):
                write[first + i * inner] = 1 if i == index else 0

    return kernel
