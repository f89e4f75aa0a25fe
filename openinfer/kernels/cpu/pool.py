"""Maximum and average over windows, in two passes of whole vectors per row of output.

    down:   line[x] = join of the kernel's rows at column x      # a row outside the image is one that changes nothing: -inf, or 0
    across: y[q] = join of line[q · stride + j · dilation - left] for each column j of the kernel

The line is padded by what changes nothing, so no tap is tested. An average adds in float64, and divides by the taps that count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.loop import counted
from openinfer.kernels.cpu.pointers import POINTERS, f64
from openinfer.kernels.cpu.vectors import I32, VectorType, i64, widest

LINES = 4  # between a line's writing and its reading: a vector read across two stores that are still under way waits for them
UNROLLED = 8  # taps; a longer kernel loops


@functools.cache
def pool(*, dtype: str, maximum: bool, kernel: tuple[int, int], column_step: int, column_dilation: int) -> Any:
    """pool(x, taps, line, nothing, y, height, width, row_step, row_dilation, top, left, bottom, oh, ow, elements, low, high).

    A block is one channel of one image. `taps` holds for each column of the output how many columns of its window count; of the rows
    those that lie above height + `bottom` do and, where `bottom` is negative, inside the image. `line` has room for LINES lines of
    `elements` in float64, or for a maximum in `dtype`; `nothing` for `width` and a vector to spare in `dtype`.
    """
    rows, columns = kernel
    read = POINTERS[dtype]
    wide = widest(dtype if maximum else "float64")
    narrow = VectorType(dtype, wide.lanes)
    neutral = -np.inf if maximum else 0.0
    item, line_item = narrow.item_bytes, wide.item_bytes
    down = _down(narrow, wide, rows, maximum)
    across = _across(narrow, wide, columns, column_step, column_dilation, maximum)

    @nb.njit(error_model="numpy")
    def pooled(
        x: int,
        taps: int,
        line: int,
        nothing: int,
        y: int,
        height: int,
        width: int,
        row_step: int,
        row_dilation: int,
        top: int,
        left: int,
        bottom: int,
        oh: int,
        ow: int,
        elements: int,
        low: int,
        high: int,
    ) -> None:
        padded = read(line) if maximum else f64(line)
        for i in range(LINES * elements):
            padded[i] = neutral
        for i in range(width):
            read(nothing)[i] = neutral
        for block in range(low, high):
            image = x + block * height * width * item
            for start in range(0, oh, LINES):
                stop = min(start + LINES, oh)
                for r in range(start, stop):
                    own = line + ((r - start) * elements + left) * line_item
                    down(image, nothing, own, r * row_step - top, row_dilation, height, width)
                for r in range(start, stop):
                    counted_rows = 0
                    if not maximum:
                        for i in range(rows):
                            row = r * row_step - top + i * row_dilation
                            counted_rows += (row < height + bottom) if bottom >= 0 else (0 <= row < height)
                    across(line + (r - start) * elements * line_item, taps, float(counted_rows), y + (block * oh + r) * ow * item, ow)

    return pooled


def _join(b: Any, v: VectorType, maximum: bool) -> Callable[[Any, Any], Any]:
    return lambda total, value: v.maximum(b, total, value) if maximum else b.fadd(total, value)


def _over(b: Any, taps: int, value: Callable[[Any], Any], join: Callable[[Any, Any], Any]) -> Any:
    """The join of `value(tap)` for every tap, first to last; a tap is a number known now, or in a loop an i64."""
    total = value(0)
    if taps <= UNROLLED:
        for tap in range(1, taps):
            total = join(total, value(tap))
        return total
    return counted(b, i64(1), i64(taps), [total], lambda tap, carried: [join(carried[0], value(tap))])[0]


def _down(narrow: VectorType, wide: VectorType, rows: int, maximum: bool) -> Any:
    """down(image, nothing, line, above, dilation, height, width): the rows `above`, `above` + `dilation`, … joined into `line`."""
    neutral = float("-inf") if maximum else 0.0

    @intrinsic
    def down(typing_context: Any, image: Any, nothing: Any, line: Any, above: Any, dilation: Any, height: Any, width: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            outside, target = b.inttoptr(args[1], ir.PointerType()), b.inttoptr(args[2], ir.PointerType())
            image, above, dilation, height, width = (args[i] for i in (0, 3, 4, 5, 6))
            join = _join(b, wide, maximum)

            def row(tap: Any) -> Any:
                at = b.add(above, b.mul(i64(tap) if isinstance(tap, int) else tap, dilation))
                inside = b.icmp_unsigned("<", at, height)
                there = b.add(image, b.mul(b.mul(at, width), i64(narrow.item_bytes)))
                return b.select(inside, b.inttoptr(there, ir.PointerType()), outside)

            def vector(column: Any, load: Callable[[Any, Any], Any]) -> None:
                def value(tap: Any) -> Any:
                    loaded = load(row(tap), column)
                    return loaded if narrow.dtype == wide.dtype else b.fpext(loaded, wide.type)

                wide.store(b, _over(b, rows, value, join), target, column)

            def whole(index: Any, carried: list[Any]) -> list[Any]:
                vector(b.mul(index, i64(wide.lanes)), lambda base, column: narrow.load(b, base, column))
                return carried

            blocks = b.udiv(width, i64(wide.lanes))
            counted(b, i64(0), blocks, [], whole)
            column = b.mul(blocks, i64(wide.lanes))
            left = b.sub(width, column)
            with b.if_then(b.icmp_signed(">", left, i64(0))):
                # The lanes behind the row get what changes nothing: they are the padding.
                vector(column, lambda base, at: narrow.load_first(b, base, at, left, neutral))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), emit

    return down


def _across(narrow: VectorType, wide: VectorType, columns: int, step: int, dilation: int, maximum: bool) -> Any:
    """across(line, taps, count, y, ow): `ow` outputs from the padded line; reads up to a vector beyond the last window."""

    @intrinsic
    def across(typing_context: Any, line: Any, taps: Any, count: Any, y: Any, ow: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            source, counts, target = (b.inttoptr(args[i], ir.PointerType()) for i in (0, 1, 3))
            count, ow, lanes = args[2], args[4], wide.lanes
            join = _join(b, wide, maximum)

            def outputs(q: Any) -> Any:
                first = b.mul(q, i64(step))
                pairs: dict[int, tuple[Any, Any]] = {}

                def pair(at: Any) -> tuple[Any, Any]:
                    return wide.load(b, source, at), wide.load(b, source, b.add(at, i64(lanes)))

                def value(tap: Any) -> Any:
                    at = b.add(first, i64(tap * dilation) if isinstance(tap, int) else b.mul(tap, i64(dilation)))
                    if step == 1:
                        return wide.load(b, source, at)
                    if step == 2:
                        odd = tap * dilation % 2 if isinstance(tap, int) else 0
                        if isinstance(tap, int):
                            # Neighbouring taps are the even and the odd lanes of the same two vectors.
                            even = tap * dilation - odd
                            pairs[even] = pairs.get(even) or pair(b.add(first, i64(even)))
                            chosen = pairs[even]
                        else:
                            chosen = pair(at)
                        order = ir.Constant(ir.VectorType(I32, lanes), [2 * lane + odd for lane in range(lanes)])
                        return b.shuffle_vector(*chosen, order)
                    result = ir.Constant(wide.type, ir.Undefined)
                    for lane in range(lanes):
                        element = wide.load_scalar(b, source, b.add(at, i64(lane * step)))
                        result = b.insert_element(result, element, ir.Constant(I32, lane))
                    return result

                total = _over(b, columns, value, join)
                if maximum:
                    return total
                divisor = b.fmul(wide.load(b, counts, q), wide.splat(b, count))
                average = b.fdiv(total, divisor)
                return average if narrow.dtype == wide.dtype else b.fptrunc(average, narrow.type)

            def whole(index: Any, carried: list[Any]) -> list[Any]:
                q = b.mul(index, i64(lanes))
                narrow.store(b, outputs(q), target, q)
                return carried

            blocks = b.udiv(ow, i64(lanes))
            counted(b, i64(0), blocks, [], whole)
            q = b.mul(blocks, i64(lanes))
            left = b.sub(ow, q)
            with b.if_then(b.icmp_signed(">", left, i64(0))):
                narrow.store_first(b, outputs(q), target, q, left)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.float64, types.intp, types.intp), emit

    return across
