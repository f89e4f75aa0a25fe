"""Resampling along one axis of [outer, before, inner] → [outer, after, inner]; `ops.resize` makes the tables."""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS, i64

UNROLLED = 4
COPIED_AS = {"float16": "uint16"}


@functools.cache
def resize_axis(*, dtype: str, taps: int, last: bool, outside: bool, extrapolation: float) -> Any:
    """resize_axis(x, y, indices, weights, before, after, inner, low, high); tables are [after, taps], indices int64.

    A block is one output row of `inner` elements, or where the axis is the `last` one all `after` elements of one outer position. A
    position whose index is negative takes the `extrapolation` value.
    """
    pointer, cast = POINTERS[dtype], NUMBA_TYPES[dtype]
    single = taps <= UNROLLED

    @nb.njit(error_model="numpy")
    def rows(x: int, y: int, indices: int, weights: int, before: int, after: int, inner: int, low: int, high: int) -> None:
        read, write, index, weight = pointer(x), pointer(y), i64(indices), pointer(weights)
        for block in range(low, high):
            outer, to = block // after, block * inner
            source, entry = outer * before * inner, (block - outer * after) * taps
            if outside and index[entry] < 0:
                for i in range(inner):
                    write[to + i] = cast(extrapolation)
            elif single:
                for i in range(inner):
                    total = cast(0)
                    for t in range(taps):
                        total += weight[entry + t] * read[source + index[entry + t] * inner + i]
                    write[to + i] = total
            else:
                for i in range(inner):
                    write[to + i] = cast(0)
                for t in range(taps):
                    factor, at = weight[entry + t], source + index[entry + t] * inner
                    for i in range(inner):
                        write[to + i] += factor * read[at + i]

    @nb.njit(error_model="numpy")
    def columns(x: int, y: int, indices: int, weights: int, before: int, after: int, inner: int, low: int, high: int) -> None:
        read, write, index, weight = pointer(x), pointer(y), i64(indices), pointer(weights)
        for block in range(low, high):
            source, to = block * before, block * after
            for o in range(after):
                entry = o * taps
                if outside and index[entry] < 0:
                    write[to + o] = cast(extrapolation)
                else:
                    total = cast(0)
                    for t in range(taps):
                        total += weight[entry + t] * read[source + index[entry + t]]
                    write[to + o] = total

    return columns if last else rows


@functools.cache
def take_axis(*, dtype: str, last: bool, outside: bool, extrapolation: float) -> Any:
    """take_axis(x, y, indices, before, after, inner, low, high): `resize_axis` with one tap of weight one, for any dtype."""
    pointer, cast = POINTERS[COPIED_AS.get(dtype, dtype)], NUMBA_TYPES[COPIED_AS.get(dtype, dtype)]
    fill = int(np.float16(extrapolation).view(np.uint16)) if dtype == "float16" else extrapolation

    @nb.njit(error_model="numpy")
    def rows(x: int, y: int, indices: int, before: int, after: int, inner: int, low: int, high: int) -> None:
        read, write, index = pointer(x), pointer(y), i64(indices)
        for block in range(low, high):
            outer, to = block // after, block * inner
            place = index[block - outer * after]
            source = (outer * before + place) * inner
            if outside and place < 0:
                for i in range(inner):
                    write[to + i] = cast(fill)
            else:
                for i in range(inner):
                    write[to + i] = read[source + i]

    @nb.njit(error_model="numpy")
    def columns(x: int, y: int, indices: int, before: int, after: int, inner: int, low: int, high: int) -> None:
        read, write, index = pointer(x), pointer(y), i64(indices)
        for block in range(low, high):
            source, to = block * before, block * after
            for o in range(after):
                if outside and index[o] < 0:
                    write[to + o] = cast(fill)
                else:
                    write[to + o] = read[source + index[o]]

    return columns if last else rows
