"""Reductions of lines of elements, each in one order that depends on its length alone.

`reduce` takes contiguous lines: floats in the vectors of `lines`, integers first to last. `reduce_columns` takes lines that lie side by
side, many at once, each first to last. Which of the two runs follows from the axes, never from a size, so a batch of one keeps its bits.
Sums of floats run in float64, of integers in int64 or uint64.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu.lines import fold_line, line_start, strided_maximum
from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS
from openinfer.ops.reduce import COLUMNS

FLOATS = ("float32", "float64")
# Operation → (operation of a line, start, update, result); `a` accumulates, `v` is the next element, `first` the first one.
STEPS = {
    "ReduceSum": ("sum", "zero", "a + v", "a"),
    "ReduceMean": ("sum", "zero", "a + v", "a / size"),
    "ReduceProd": ("product", "one", "a * v", "a"),
    "ReduceMax": ("maximum", "first", "v if v > a or v != v else a", "a"),
    "ReduceMin": ("minimum", "first", "v if v < a or v != v else a", "a"),
    "ReduceL1": ("absolute", "zero", "a + abs(v)", "a"),
    "ReduceL2": ("square", "zero", "a + v * v", "math.sqrt(a)"),
    "ReduceSumSquare": ("square", "zero", "a + v * v", "a"),
    "ReduceLogSum": ("sum", "zero", "a + v", "math.log(a)"),
}


@functools.cache
def reduce(*, operation: str, dtype: str) -> Any:
    """reduce(x, y, size, low, high): y[line] from the contiguous x[line, :]; a block is one line of `size` ≥ 1."""
    fold, start, update, result = STEPS[operation]
    if dtype in FLOATS:
        body = [f"a = fold(x + block * size * {np.dtype(dtype).itemsize}, size, 0.0)"]
    else:
        body = ["at = block * size", "first = wide(read[at])", f"a = {start}", "for i in range(size):", "    v = wide(read[at + i])"]
        body += [f"    a = {update}"]
    lines = ["def kernel(x, y, size, low, high):", "    read, write = pointer(x), pointer(y)", "    for block in range(low, high):"]
    lines += [f"        {line}" for line in body] + [f"        write[block] = cast({result})"]
    return _compiled(lines, operation, dtype, fold)


@functools.cache
def reduce_columns(*, operation: str, dtype: str) -> Any:
    """reduce_columns(x, partial, y, size, inner, low, high): y[o, i] from x[o, :, i]; a block is up to `COLUMNS` neighbouring i of one o.

    `partial` is working memory for `COLUMNS` wide accumulators.
    """
    fold, start, update, result = STEPS[operation]
    lines = [
        "def kernel(x, partial, y, size, inner, low, high):",
        "    read, write, sums = pointer(x), pointer(y), accumulator(partial)",
        f"    groups = (inner + {COLUMNS - 1}) // {COLUMNS}",
        "    for block in range(low, high):",
        f"        o, column = block // groups, block % groups * {COLUMNS}",
        f"        n = min({COLUMNS}, inner - column)",
        "        at = o * size * inner + column",
        "        for j in range(n):",
        "            first = wide(read[at + j])",
        f"            sums[j] = {start}",
        "        for i in range(size):",
        "            row = at + i * inner",
        "            for j in range(n):",
        "                v, a = wide(read[row + j]), sums[j]",
        f"                sums[j] = {update}",
        "        for j in range(n):",
        "            a = sums[j]",
        f"            write[o * inner + column + j] = cast({result})",
    ]
    return _compiled(lines, operation, dtype, fold)


def _compiled(lines: list[str], operation: str, dtype: str, fold: str) -> Any:
    is_float = dtype in FLOATS
    # In uint64 a signed constant or accumulator would turn the arithmetic into float64.
    accumulator = "float64" if is_float else "uint64" if dtype == "uint64" else "int64"
    namespace: dict[str, Any] = {
        "pointer": POINTERS[dtype],
        "accumulator": POINTERS[accumulator],
        "cast": NUMBA_TYPES[dtype],
        "wide": NUMBA_TYPES[accumulator],
        "zero": np.dtype(accumulator).type(0),
        "one": np.dtype(accumulator).type(1),
        "fold": fold_line(dtype, fold) if is_float else None,
        "math": math,
        "__name__": "openinfer.generated",
    }
    exec(compile("\n".join(lines), f"<openinfer {operation}>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])


@functools.cache
def log_sum_exp(*, dtype: str) -> Any:
    """log_sum_exp(x, y, size, inner, low, high): y[o, i] = log Σ exp(x[o, :, i]), shifted by the maximum; a block is one (o, i)."""
    pointer, cast, largest = POINTERS[dtype], NUMBA_TYPES[dtype], strided_maximum(dtype)

    @nb.njit(error_model="numpy")
    def kernel(x: int, y: int, size: int, inner: int, low: int, high: int) -> None:
        read, write = pointer(x), pointer(y)
        for block in range(low, high):
            at = line_start(block, size, inner)
            top = largest(x, at, size, inner)
            # An infinite maximum is the answer; subtracting it would make NaN.
            shift = 0.0 if math.isinf(top) else float(top)
            total = 0.0
            for i in range(size):
                total += math.exp(read[at + i * inner] - shift)
            write[block] = cast(math.log(total) + shift)

    return kernel


@functools.cache
def arg_extreme(*, dtype: str, maximum: bool, last: bool) -> Any:
    """arg_extreme(x, y, size, inner, low, high): int64 index of the extreme of x[o, :, i], the first or the `last` of equals; a NaN is
    extreme; a block is one (o, i).
    """
    pointer, write_to = POINTERS[dtype], POINTERS["int64"]

    @nb.njit(error_model="numpy")
    def kernel(x: int, y: int, size: int, inner: int, low: int, high: int) -> None:
        read, write = pointer(x), write_to(y)
        for block in range(low, high):
            start = line_start(block, size, inner)
            best, index = read[start], 0
            for i in range(1, size):
                v = read[start + i * inner]
                better = v > best if maximum else v < best
                equal = v == best if last else False
                if (better or equal or v != v) and best == best:
                    best, index = v, i
            write[block] = index

    return kernel
