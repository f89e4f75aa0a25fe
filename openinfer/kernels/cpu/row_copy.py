"""Rows of an image, moved in whole vectors: as they are, or split into even and odd columns."""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.vectors import I32, VectorType, i64


@functools.cache
def copy_row(vector: VectorType, width: int, masked: bool) -> Any:
    """copy_row(source, to): `width` elements, in whole vectors. Beyond them nothing is read; zeros are written unless `masked`."""

    @intrinsic
    def copy_row(typing_context: Any, source: Any, to: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            read, write = (b.inttoptr(argument, ir.PointerType()) for argument in args)
            for start in range(0, width, vector.lanes):
                value = _load(b, vector, read, start, width - start)
                if masked and width - start < vector.lanes:
                    vector.store_first(b, value, write, i64(start), i64(width - start))
                else:
                    vector.store(b, value, write, i64(start))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), emit

    return copy_row


@functools.cache
def split_row(vector: VectorType, width: int) -> Any:
    """split_row(source, even, odd): the even and the odd ones of `width` elements, in whole vectors, and zeros behind them."""

    @intrinsic
    def split(typing_context: Any, source: Any, even: Any, odd: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            read, *write = (b.inttoptr(argument, ir.PointerType()) for argument in args)
            for start in range(0, width, 2 * vector.lanes):
                both = [_load(b, vector, read, at, width - at) for at in (start, start + vector.lanes)]
                for parity, place in enumerate(write):
                    mask = ir.Constant(ir.VectorType(I32, vector.lanes), [2 * lane + parity for lane in range(vector.lanes)])
                    vector.store(b, b.shuffle_vector(both[0], both[1], mask), place, i64(start // 2))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), emit

    return split


def _load(b: Any, vector: VectorType, base: Any, index: int, count: int) -> Any:
    """The first `count` elements and zeros; without a mask where the vector is whole or empty."""
    if count <= 0:
        return vector.constant(0.0)
    return vector.load(b, base, i64(index)) if count >= vector.lanes else vector.load_first(b, base, i64(index), i64(count), 0.0)
