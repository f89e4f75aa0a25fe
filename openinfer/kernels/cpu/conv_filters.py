"""Convolution with filters in the vector lanes: for images too small, or windows too wide, to fill vectors with pixels.

A tile of `rows` × `columns` pixels × `vectors` vectors of filters stays in registers; it is transposed before it is stored, since the
output keeps the pixels of a filter together. Pixels lie at fixed distances in the padded plane, so their loads need no address arithmetic.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.conv_tile import accumulate
from openinfer.kernels.cpu.dense import activate
from openinfer.kernels.cpu.transpose import transpose
from openinfer.kernels.cpu.vectors import I64, VectorType, i64, widest


@functools.cache
def conv_filters(
    *,
    dtype: str,
    chains: int,
    rows: int,
    columns: int,
    vectors: int,
    row_distance: int,
    column_distance: int,
    activation: str | None = None,
    low_bound: float = 0.0,
    high_bound: float = 0.0,
) -> Any:
    """conv_filters(plane, offsets, weights, bias, y, depth, length, image, group, groups, per_group, filter_blocks, oh, ow, low, high).

    `length` are the steps of one chain of the `depth`. Neighbouring outputs read the plane `row_distance` and `column_distance` elements
    apart. A tile has one row, or whole rows; the last
    tiles of a row or column are moved back to end with the image, and store only what is their own. A block is one tile of one block of
    filters of one group of one image.
    """
    vector = widest(dtype)
    item, width = vector.item_bytes, vectors * vector.lanes
    tile = _tile(vector, chains, rows, columns, vectors, row_distance, column_distance, activation, low_bound, high_bound)

    @nb.njit(error_model="numpy")
    def kernel(
        plane: int, offsets: int, weights: int, bias: int, y: int, depth: int, length: int, image: int, group: int, groups: int,
        per_group: int, filter_blocks: int, oh: int, ow: int, low: int, high: int,
    ) -> None:  # fmt: skip
        down, across = (oh + rows - 1) // rows, (ow + columns - 1) // columns
        for block in range(low, high):
            column = (block % across) * columns
            rest = block // across
            row = (rest % down) * rows
            rest = rest // down
            fb = rest % filter_blocks
            rest = rest // filter_blocks
            g, n = rest % groups, rest // groups
            packed = g * filter_blocks + fb
            r, q = min(row, oh - rows), min(column, ow - columns)
            tile(
                plane + (n * image + g * group + r * row_distance + q * column_distance) * item,
                offsets,
                weights + packed * depth * width * item,
                bias + packed * width * item,
                y + (((n * groups + g) * per_group + fb * width) * oh * ow + r * ow + q) * item,
                (row - r) * columns + column - q,
                per_group - fb * width,
                oh * ow,
                depth,
                length,
            )

    return kernel


def _tile(
    vector: VectorType,
    chains: int,
    rows: int,
    columns: int,
    vectors: int,
    row_distance: int,
    column_distance: int,
    activation: str | None,
    low_bound: float,
    high_bound: float,
) -> Any:
    """tile(pixels, offsets, weights, bias, y, skipped, kept, filter_size, depth, length): stores all but the first `skipped` pixels of
    `kept` filters.
    """
    count, width = rows * columns, vectors * vector.lanes
    distances = [row * row_distance + column * column_distance for row in range(rows) for column in range(columns)]

    @intrinsic
    def tile(
        typing_context: Any,
        pixels: Any,
        offsets: Any,
        weights: Any,
        bias: Any,
        y: Any,
        skipped: Any,
        kept: Any,
        filter_size: Any,
        depth: Any,
        length: Any,
    ) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            image, table, packed, shifts, out = (b.inttoptr(argument, ir.PointerType()) for argument in args[:5])
            skipped, kept, filter_size, depth, length = args[5:]

            def pixel(k: Any) -> Any:
                at = vector.at(b, image, b.load(b.gep(table, [k], source_etype=I64), align=8, typ=I64))
                return lambda i: vector.load_scalar(b, at, i64(distances[i]))

            def weight(k: Any) -> Any:
                at = vector.at(b, packed, b.mul(k, i64(width)))
                return lambda j: vector.load(b, at, i64(j * vector.lanes))

            sums = accumulate(b, vector, chains, depth, length, count, vectors, pixel, weight)
            for j in range(vectors):
                shift = vector.load(b, shifts, i64(j * vector.lanes))
                results = [activate(b, vector, b.fadd(sums[i, j], shift), activation, low_bound, high_bound) for i in range(count)]
                for first in range(0, count, vector.lanes):
                    part = results[first : first + vector.lanes]
                    below = b.sub(skipped, i64(first))
                    for lane, value in enumerate(transpose(b, vector, part)):
                        f = j * vector.lanes + lane
                        limit = b.select(b.icmp_signed("<", i64(f), kept), i64(len(part)), i64(0))
                        vector.store_between(b, value, out, b.add(b.mul(filter_size, i64(f)), i64(first)), below, limit)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 10), emit

    return tile
