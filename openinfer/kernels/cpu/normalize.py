"""Layer, instance, group and root-mean-square normalisation: each line of a tensor by its own mean and variance.

Mean and variance are float64, in two passes. The difference x - mean is taken against the mean split into two parts of x's dtype, so that
a line far from zero keeps its digits.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba as nb

from openinfer.kernels.cpu.lines import fold_line
from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS


@functools.cache
def normalize(*, dtype: str, epsilon: float, centred: bool, elementwise: bool, statistics: bool) -> Any:
    """normalize(x, scale, bias, y, mean, inverse, size, segments, lines, low, high): a block is one contiguous line of `size` elements.

    `elementwise`: scale and bias hold one number per element of a line. Otherwise a line is `segments` equal runs of elements, each with
    one number, and the numbers repeat every `lines` lines. `statistics` also writes a line's mean and 1 / sqrt(variance + epsilon).
    """
    pointer, cast = POINTERS[dtype], NUMBA_TYPES[dtype]
    total, squares = fold_line(dtype, "sum"), fold_line(dtype, "square")
    item = 4 if dtype == "float32" else 8

    @nb.njit(error_model="numpy", forceinline=True)
    def run(read: Any, write: Any, start: int, length: int, high_part: Any, low_part: Any, factor: Any, shift: Any) -> None:
        for i in range(start, start + length):
            write[i] = ((read[i] - high_part) - low_part) * factor + shift

    @nb.njit(error_model="numpy")
    def kernel(
        x: int, scale: int, bias: int, y: int, mean: int, inverse: int, size: int, segments: int, lines: int, low: int, high: int
    ) -> None:
        read, write, factors, shifts = pointer(x), pointer(y), pointer(scale), pointer(bias)
        for line in range(low, high):
            start = line * size
            middle = total(x + start * item, size, 0.0) / size if centred else 0.0
            factor = 1.0 / math.sqrt(squares(x + start * item, size, middle) / size + epsilon)
            narrow = cast(factor)
            high_part = cast(middle)
            low_part = cast(middle - high_part)
            if statistics:
                pointer(mean)[line] = high_part
                pointer(inverse)[line] = narrow
            if elementwise:
                for i in range(size):
                    write[start + i] = ((read[start + i] - high_part) - low_part) * narrow * factors[i] + shifts[i]
            else:
                length = size // segments
                for segment in range(segments):
                    number = line % lines * segments + segment
                    # The product of the two factors is rounded once.
                    run(read, write, start + segment * length, length, high_part, low_part, cast(factor * factors[number]), shifts[number])

    return kernel
