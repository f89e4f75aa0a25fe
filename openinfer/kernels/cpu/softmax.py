"""Softmax along one axis: y = exp(x - max) / sum, the sum in float64.

A contiguous line that fits one vector stays in it from load to store; a longer one takes a pass for the maximum, one for the exponentials
and one to scale them. Lines of strided elements go one by one. The order of the sum depends on the length of the line alone.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.activations import exp
from openinfer.kernels.cpu.lines import fold_line, line_start, strided_maximum
from openinfer.kernels.cpu.loop import counted
from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS
from openinfer.kernels.cpu.vector_math import EXP
from openinfer.kernels.cpu.vectors import I32, VectorType, i64, widest

NARROW = 4  # lanes for the shortest lines: fewer steps from lane to lane
# Below this, e ** x is smaller than every normal float32, or float64, and taken as 0.
ZERO_BELOW = {"float32": -87.0, "float64": -708.0}


@functools.cache
def softmax(*, dtype: str, contiguous: bool) -> Any:
    """softmax(x, y, size, inner, low, high): a block is one line of `size` elements, `inner` elements apart."""
    return _contiguous(dtype) if contiguous else _strided(dtype)


def _contiguous(dtype: str) -> Any:
    pointer, cast = POINTERS[dtype], NUMBA_TYPES[dtype]
    item, lanes = widest(dtype).item_bytes, widest(dtype).lanes
    narrow, wide = _in_one_vector(VectorType(dtype, NARROW)), _in_one_vector(widest(dtype))
    largest, exponentials, total = fold_line(dtype, "maximum"), _exponentials(widest(dtype)), fold_line(dtype, "sum")

    @nb.njit(error_model="numpy", forceinline=True)
    def kernel(x: int, y: int, size: int, inner: int, low: int, high: int) -> None:
        for line in range(low, high):
            source, target = x + line * size * item, y + line * size * item
            if size <= NARROW:
                narrow(source, target, size)
            elif size <= lanes:
                wide(source, target, size)
            else:
                exponentials(source, target, size, largest(source, size, 0.0))
                write, scale = pointer(target), 1.0 / total(target, size, 0.0)
                for i in range(size):
                    write[i] = cast(write[i] * scale)

    return kernel


def _strided(dtype: str) -> Any:
    pointer, exponential, cast, largest = POINTERS[dtype], EXP[dtype], NUMBA_TYPES[dtype], strided_maximum(dtype)

    @nb.njit(error_model="numpy", forceinline=True)
    def kernel(x: int, y: int, size: int, inner: int, low: int, high: int) -> None:
        read, write = pointer(x), pointer(y)
        for line in range(low, high):
            first = line_start(line, size, inner)
            top = largest(x, first, size, inner)
            total = 0.0
            for i in range(size):
                value = exponential(read[first + i * inner] - top)
                write[first + i * inner] = value
                total += value
            scale = 1.0 / total
            for i in range(size):
                write[first + i * inner] = cast(write[first + i * inner] * scale)

    return kernel


def _in_one_vector(v: VectorType) -> Any:
    """line(x, y, size): a line of 1 … lanes elements."""
    wide = VectorType("float64", v.lanes)

    @intrinsic
    def line(typing_context: Any, x: Any, y: Any, size: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            source, target, size = b.inttoptr(args[0], ir.PointerType()), b.inttoptr(args[1], ir.PointerType()), args[2]
            values = v.load_first(b, source, i64(0), size, float("-inf"))
            top = _fold(b, v, values, lambda one, other: v.maximum(b, one, other))
            powers = _exp_below_zero(b, v, b.fsub(values, v.splat(b, top)))
            # The lanes behind the line are exp(-inf) = 0, and NaN where the line has one: nothing of them is stored.
            exact = b.fpext(powers, wide.type) if v.dtype != "float64" else powers
            total = _fold(b, wide, exact, lambda one, other: b.fadd(one, other))
            scaled = b.fmul(exact, wide.splat(b, b.fdiv(ir.Constant(wide.scalar, 1.0), total)))
            v.store_first(b, b.fptrunc(scaled, v.type) if v.dtype != "float64" else scaled, target, i64(0), size)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 3), emit

    return line


def _exponentials(v: VectorType) -> Any:
    """exponentials(x, y, size, top): y = exp(x - top) along a line."""

    @intrinsic
    def exponentials(typing_context: Any, x: Any, y: Any, size: Any, top: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            source, target, size = b.inttoptr(args[0], ir.PointerType()), b.inttoptr(args[1], ir.PointerType()), args[2]
            top, blocks = v.splat(b, args[3]), b.udiv(size, i64(v.lanes))

            def whole(at: Any, carried: list[Any]) -> list[Any]:
                index = b.mul(at, i64(v.lanes))
                v.store(b, _exp_below_zero(b, v, b.fsub(v.load(b, source, index), top)), target, index)
                return carried

            counted(b, i64(0), blocks, [], whole)
            index = b.mul(blocks, i64(v.lanes))
            left = b.sub(size, index)
            rest = v.load_first(b, source, index, left, 0.0)
            v.store_first(b, _exp_below_zero(b, v, b.fsub(rest, top)), target, index, left)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, NUMBA_TYPES[v.dtype]), emit

    return exponentials


def _exp_below_zero(b: Any, v: VectorType, x: Any) -> Any:
    """e ** x for x ≤ 0; 0 where it would be no normal number; NaN for NaN."""
    tiny = b.fcmp_ordered("<", x, v.constant(ZERO_BELOW[v.dtype]))
    return b.select(tiny, v.constant(0.0), exp(b, v, x))


def _fold(b: Any, v: VectorType, vector: Any, join: Any) -> Any:
    """All lanes joined: the upper half with the lower one until one lane is left."""
    lanes = v.lanes
    while lanes > 1:
        lanes //= 2
        order = [lane + lanes if lane < lanes else lane for lane in range(v.lanes)]
        shuffled = b.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, v.lanes), order))
        vector = join(vector, shuffled)
    return b.extract_element(vector, ir.Constant(I32, 0))
