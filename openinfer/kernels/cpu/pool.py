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
        for block in range(low, high):
            source, to = block * height * width, block * oh * ow
            for r in range(oh):
                for q in range(ow):
                    best, total, inside, padded = cast(-np.inf), 0.0, 0, 0
                    for i in range(kh):
                        row = r * sh + i * dh - top
                        for j in range(kw):
                            column = q * sw + j * dw - left
                            padded += row < height + bottom and column < width + right
                            if 0 <= row < height and 0 <= column < width:
                                value = read[source + row * width + column]
                                inside += 1
                                total += value
                                best = value if value > best or value != value else best
                    if maximum:
                        write[to + r * ow + q] = best
                    else:
                        write[to + r * ow + q] = cast(total / (padded if count_padding else inside))

    return kernel
