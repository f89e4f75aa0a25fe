"""Lines of a tensor: where a strided one starts, its maximum; of a contiguous one sums, products and extremes in explicit vectors, wide
enough that no float32 sum loses digits.

    acc[0…3] = start                                  # four vectors of eight lanes on every machine, so one order everywhere
    for block of 32 elements: acc[j] = update(acc[j], x[8 j … 8 j + 7])
    result = join of the lanes, then of the elements behind the last block, first to last

The order depends on the length alone.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.loop import counted
from openinfer.kernels.cpu.pointers import POINTERS
from openinfer.kernels.cpu.vectors import I32, VectorType, i64

LANES, VECTORS = 8, 4
BLOCK = LANES * VECTORS
OPERATIONS = ("sum", "absolute", "square", "product", "maximum", "minimum")


@nb.njit(error_model="numpy", forceinline=True)
def line_start(line: int, size: int, inner: int) -> int:
    """Where the `line`-th line of [outer, size, inner] starts, in elements; its elements lie `inner` apart."""
    return (line // inner) * size * inner + line % inner


@functools.cache
def strided_maximum(dtype: str) -> Any:
    """maximum(x, first, size, inner): the largest of `size` ≥ 1 elements from `first` on, `inner` apart; NaN where one is."""
    pointer = POINTERS[dtype]

    @nb.njit(error_model="numpy", forceinline=True)
    def maximum(x: int, first: int, size: int, inner: int) -> Any:
        read = pointer(x)
        top = read[first]
        for i in range(1, size):
            value = read[first + i * inner]
            top = value if value > top or value != value else top
        return top

    return maximum


@functools.cache
def fold_line(dtype: str, operation: str) -> Any:
    """fold(address, size, centre): the wide result over `size` ≥ 1 elements of float32 or float64.

    float64 for the sums (of x, |x|, (x - centre)²) and the product, `dtype` for the extremes, which are NaN where an element is.
    """
    extreme = operation in ("maximum", "minimum")
    narrow = VectorType(dtype, LANES)
    wide = narrow if extreme else VectorType("float64", LANES)
    one = ir.Constant(wide.scalar, 1.0 if operation == "product" else 0.0)

    def update(b: Any, total: Any, value: Any, centre: Any, scalar: bool) -> Any:
        if not extreme and narrow.dtype != wide.dtype:
            value = b.fpext(value, wide.scalar if scalar else wide.type)
        if operation == "square":
            apart = b.fsub(value, centre)
            return b.fadd(total, b.fmul(apart, apart))
        if operation == "absolute":
            negative = b.fcmp_ordered("<", value, value.type(0.0) if scalar else wide.constant(0.0))
            value = b.select(negative, b.fneg(value), value)
        return join(b, total, value)

    def join(b: Any, one: Any, other: Any) -> Any:
        if operation == "product":
            return b.fmul(one, other)
        if extreme:
            return (narrow.maximum if operation == "maximum" else narrow.minimum)(b, one, other)
        return b.fadd(one, other)

    @intrinsic
    def fold(typing_context: Any, address: Any, size: Any, centre: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            base, size, middle = b.inttoptr(args[0], ir.PointerType()), args[1], args[2]
            start = narrow.load_scalar(b, base, i64(0)) if extreme else one
            blocks = b.udiv(size, i64(BLOCK))
            lanes = wide.splat(b, start)
            centres = wide.splat(b, middle) if operation == "square" else None

            def step(at: Any, sums: list[Any]) -> list[Any]:
                first = b.mul(at, i64(BLOCK))
                loaded = [narrow.load(b, base, b.add(first, i64(j * LANES))) for j in range(VECTORS)]
                return [update(b, total, value, centres, False) for total, value in zip(sums, loaded, strict=True)]

            sums = counted(b, i64(0), blocks, [lanes] * VECTORS, step)
            vector = join(b, join(b, sums[0], sums[1]), join(b, sums[2], sums[3]))
            parts = [b.extract_element(vector, ir.Constant(I32, lane)) for lane in range(LANES)]
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [join(b, parts[i], parts[i + half]) for i in range(half)]

            def rest(at: Any, sums: list[Any]) -> list[Any]:
                return [update(b, sums[0], narrow.load_scalar(b, base, at), middle, True)]

            return counted(b, b.mul(blocks, i64(BLOCK)), size, parts, rest)[0]

        result = types.float32 if extreme and dtype == "float32" else types.float64
        return result(types.intp, types.intp, types.float64), emit

    return fold
