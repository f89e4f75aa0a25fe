"""Reductions of lines of elements, in one order: first to last."""

from __future__ import annotations

import functools
import math
from typing import Any

import numba as nb

from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS

# Operation → (start, update, result); `a` accumulates, `v` is the next element, `first` the first one.
STEPS = {
    "ReduceSum": ("zero", "a + v", "a"),
    "ReduceMean": ("zero", "a + v", "a / size"),
    "ReduceProd": ("zero + 1", "a * v", "a"),
    "ReduceMax": ("first", "v if v > a or v != v else a", "a"),
    "ReduceMin": ("first", "v if v < a or v != v else a", "a"),
    "ReduceL1": ("zero", "a + abs(v)", "a"),
    "ReduceL2": ("zero", "a + wide(v) * wide(v)", "math.sqrt(a)"),
    "ReduceSumSquare": ("zero", "a + wide(v) * wide(v)", "a"),
}


@functools.cache
def reduce(*, operation: str, dtype: str) -> Any:
    """reduce(x, y, size, inner, low, high): y[o, i] from x[o, :, i]; a block is one (o, i)."""
    start, update, result = STEPS[operation]
    lines = [
        "def kernel(x, y, size, inner, low, high):",
        "    read, write = pointer(x), pointer(y)",
        "    for block in range(low, high):",
        "        at = block // inner * size * inner + block % inner",
        "        first = read[at]",
        f"        a = {start}",
        "        for i in range(size):",
        "            v = read[at + i * inner]",
        f"            a = {update}",
        f"        write[block] = cast({result})",
    ]
    wide = nb.float64 if dtype in ("float32", "float64") else nb.int64
    namespace: dict[str, Any] = {
        "pointer": POINTERS[dtype],
        "cast": NUMBA_TYPES[dtype],
        "wide": wide,
        "zero": 0.0 if wide is nb.float64 else 0,
        "math": math,
        "__name__": "openinfer.generated",
    }
    exec(compile("\n".join(lines), "<openinfer reduce>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])
