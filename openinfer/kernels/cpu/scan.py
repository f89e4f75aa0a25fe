"""Running sums and products, and the largest elements, along one axis."""

from __future__ import annotations

import functools
from typing import Any

import numba as nb

from openinfer.kernels.cpu.lines import line_start
from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS


@functools.cache
def scan(*, dtype: str, product: bool, exclusive: bool, reverse: bool) -> Any:
    """scan(x, y, size, inner, low, high): y[o, i, :] from the elements x[o, …, :] up to i; a block is one line.

    Floats run in float64, integers in int64; `exclusive` leaves the element itself out; `reverse` runs from the end.
    """
    pointer, cast = POINTERS[dtype], NUMBA_TYPES[dtype]
    wide = nb.float64 if dtype in ("float32", "float64") else nb.int64

    @nb.njit(error_model="numpy")
    def kernel(x: int, y: int, size: int, inner: int, low: int, high: int) -> None:
        read, write = pointer(x), pointer(y)
        for line in range(low, high):
            first = line_start(line, size, inner)
            total = wide(1) if product else wide(0)
            for i in range(size):
                at = first + (size - 1 - i if reverse else i) * inner
                value = wide(read[at])
                if exclusive:
                    write[at] = cast(total)
                total = total * value if product else total + value
                if not exclusive:
                    write[at] = cast(total)

    return kernel


@functools.cache
def top(*, dtype: str, largest: bool) -> Any:
    """top(x, values, indices, size, inner, k, low, high): the `k` extremes of x[o, :, i] in order, of equals the first; NaN is largest.

    A block is one line. Every element that beats the last of the extremes found so far is inserted in its place.
    """
    pointer, index_pointer = POINTERS[dtype], POINTERS["int64"]

    @nb.njit(error_model="numpy", forceinline=True)
    def before(a: Any, b: Any) -> Any:
        above, below = a > b or (a != a and b == b), a < b or (b != b and a == a)
        return above if largest else below

    @nb.njit(error_model="numpy")
    def kernel(x: int, values: int, indices: int, size: int, inner: int, k: int, low: int, high: int) -> None:
        read, write, places = pointer(x), pointer(values), index_pointer(indices)
        for line in range(low, high):
            start, to = line_start(line, size, inner), line_start(line, k, inner)
            for i in range(size):
                value = read[start + i * inner]
                count = min(i, k)
                if count == k and (k == 0 or not before(value, write[to + (k - 1) * inner])):
                    continue
                at = min(count, k - 1)
                while at > 0 and before(value, write[to + (at - 1) * inner]):
                    write[to + at * inner] = write[to + (at - 1) * inner]
                    places[to + at * inner] = places[to + (at - 1) * inner]
                    at -= 1
                write[to + at * inner] = value
                places[to + at * inner] = i

    return kernel
