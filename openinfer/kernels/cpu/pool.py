"""Maximum and average over windows."""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS


@functools.cache
def pool(*, dtype: str, maximum: bool, count_padding: bool) -> Any:
    """pool(x, y, height, width, kernel 2, strides 2, dilations 2, pads before 2, pads after 2, output 2, low, high).

    A block is one channel of one image. An average divides by the taps inside the image, or with `count_padding` inside the padded image.
    """
    pointer, cast = POINTERS[dtype], NUMBA_TYPES[dtype]

    @nb.njit(error_model="numpy", forceinline=True)
    def at_the_edge(
        read: Any,
        source: int,
        height: int,
        width: int,
        kh: int,
        kw: int,
        dh: int,
        dw: int,
        above: int,
        before: int,
        bottom: int,
        right: int,
    ) -> Any:
        """One window whose first tap is (above, before), of which parts may lie outside the image."""
        best, total, inside, padded = cast(-np.inf), 0.0, 0, 0
        for i in range(kh):
            row = above + i * dh
            for j in range(kw):
                column = before + j * dw
                padded += row < height + bottom and column < width + right
                if 0 <= row < height and 0 <= column < width:
                    value = read[source + row * width + column]
                    inside += 1
                    total += value
                    best = value if value > best or value != value else best
        return best if maximum else cast(total / (padded if count_padding else inside))

    @nb.njit(error_model="numpy")
    def kernel(
        x: int,
        y: int,
        height: int,
        width: int,
        kh: int,
        kw: int,
        sh: int,
        sw: int,
        dh: int,
        dw: int,
        top: int,
        left: int,
        bottom: int,
        right: int,
        oh: int,
        ow: int,
        low: int,
        high: int,
    ) -> None:
        read, write = pointer(x), pointer(y)
        # Windows of the columns first … last - 1 lie inside the image: no tap of theirs needs a test, and they fill vectors.
        first = min(ow, (left + sw - 1) // sw)
        last = max(first, min(ow, (width + left - (kw - 1) * dw - 1) // sw + 1))
        for block in range(low, high):
            source, to = block * height * width, block * oh * ow
            for r in range(oh):
                above, at = r * sh - top, to + r * ow
                whole = above >= 0 and above + (kh - 1) * dh < height
                start, stop = (first, last) if whole else (ow, ow)
                for q in range(start):
                    write[at + q] = at_the_edge(read, source, height, width, kh, kw, dh, dw, above, q * sw - left, bottom, right)
                for q in range(start, stop):
                    corner = source + above * width + q * sw - left
                    if maximum:
                        best = read[corner]
                        for i in range(kh):
                            for j in range(kw):
                                value = read[corner + i * dh * width + j * dw]
                                best = value if value > best or value != value else best
                        write[at + q] = best
                    else:
                        total = 0.0
                        for i in range(kh):
                            for j in range(kw):
                                total += read[corner + i * dh * width + j * dw]
                        write[at + q] = cast(total / (kh * kw))
                for q in range(stop, ow):
                    write[at + q] = at_the_edge(read, source, height, width, kh, kw, dh, dw, above, q * sw - left, bottom, right)

    return kernel
