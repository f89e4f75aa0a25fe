"""Logarithm of softmax along one axis: x - max - log(sum of exponentials), the sum in float64 from first to last."""

from __future__ import annotations

import functools
import math
from typing import Any

import numba as nb

from openinfer.kernels.cpu.lines import line_start, strided_maximum
from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS
from openinfer.kernels.cpu.vector_math import EXP


@functools.cache
def logsoftmax(*, dtype: str) -> Any:
    """logsoftmax(x, y, size, inner, low, high): a block is one line of `size` elements, `inner` elements apart."""
    pointer, exp, cast, largest = POINTERS[dtype], EXP[dtype], NUMBA_TYPES[dtype], strided_maximum(dtype)

    @nb.njit(error_model="numpy")
    def kernel(x: int, y: int, size: int, inner: int, low: int, high: int) -> None:
        read, write = pointer(x), pointer(y)
        for line in range(low, high):
            first = line_start(line, size, inner)
            top = largest(x, first, size, inner)
            total = 0.0
            for i in range(size):
                total += exp(read[first + i * inner] - top)
            shift = math.log(total)
            for i in range(size):
                write[first + i * inner] = cast((read[first + i * inner] - top) - shift)

    return kernel
