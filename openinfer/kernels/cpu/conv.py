"""Convolution as a matrix product over flat padded planes: see `ops.conv` for the layout.

A tile of `rows` filters × `vectors` vectors of neighbouring pixels stays in registers; the order of the reduction depends on its depth
alone (`conv_tile`), so a pixel has the same bits in every batch and on every thread.
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
from openinfer.kernels.cpu.pointers import POINTERS
from openinfer.kernels.cpu.vectors import I64, VectorType, i64, widest


@functools.cache
def phase_copy(*, dtype: str) -> Any:
    """phase_copy(x, plane, height, width, top, left, sh, sw, hq, wq, low, high): a block is one channel of one image."""
    pointer = POINTERS[dtype]

    @nb.njit(error_model="numpy")
    def kernel(
        x: int, plane: int, height: int, width: int, top: int, left: int, sh: int, sw: int, hq: int, wq: int, low: int, high: int
    ) -> None:
        read, write = pointer(x), pointer(plane)
        for block in range(low, high):
            source, at = block * height * width, block * sh * sw * hq * wq
            for ph in range(sh):
                for pw in range(sw):
                    # Columns first … last of this phase lie inside the image.
                    first = min(wq, max(0, (left - pw + sw - 1) // sw))
                    last = max(first, min(wq, (width + left - pw + sw - 1) // sw))
                    for h in range(hq):
                        r = h * sh + ph - top
                        if 0 <= r < height:
                            start = source + r * width + pw - left
                            for q in range(first):
                                write[at + q] = 0
                            if sw == 1:
                                for q in range(first, last):
                                    write[at + q] = read[start + q]
                            else:
                                for q in range(first, last):
                                    write[at + q] = read[start + q * sw]
                            for q in range(last, wq):
                                write[at + q] = 0
                        else:
                            for q in range(wq):
                                write[at + q] = 0
                        at += wq

    return kernel


@functools.cache
def conv(
    *,
    dtype: str,
    chains: int,
    rows: int,
    vectors: int,
    column_step: int = 1,
    activation: str | None = None,
    low_bound: float = 0.0,
    high_bound: float = 0.0,
) -> Any:
    """conv(plane, offsets, weights, bias, y, depth, length, image, group, groups, per_group, filter_blocks, chunks, pixels, wq, oh, ow,
    filter_size, start, row_step, low, high).

    `length` are the steps of one chain of the `depth`; `image` and `group` are elements of the planes of one image, of one group; `wq`
    the width of a plane; `oh`, `ow` the rows and columns that are stored: (r, q) at `start` + r · `row_step` + q · `column_step` within
    the `filter_size` elements of one filter's output. A block is one chunk of `vectors` vectors of pixels of one block of `rows` filters.
    Where there are enough pixels the last chunk is moved back to end with them, and stores only what is its own.
    """
    vector = widest(dtype)
    width, item = vectors * vector.lanes, vector.item_bytes
    tile = _tile(vector, chains, rows, vectors, column_step, activation, low_bound, high_bound)

    @nb.njit(error_model="numpy")
    def kernel(
        plane: int, offsets: int, weights: int, bias: int, y: int, depth: int, length: int, image: int, group: int, groups: int,
        per_group: int, filter_blocks: int, chunks: int, pixels: int, wq: int, oh: int, ow: int, filter_size: int, start: int,
        row_step: int, low: int, high: int,
    ) -> None:  # fmt: skip
        for block in range(low, high):
            fb = block % filter_blocks
            rest = block // filter_blocks
            own = (rest % chunks) * width
            rest = rest // chunks
            g, n = rest % groups, rest // groups
            packed = g * filter_blocks + fb
            first = max(0, min(own, pixels - width))
            tile(
                plane + (n * image + g * group + first) * item,
                offsets,
                weights + packed * depth * rows * item,
                bias + packed * rows * item,
                y + (((n * groups + g) * per_group + fb * rows) * filter_size + start) * item,
                first,
                own,
                wq,
                oh,
                ow,
                filter_size,
                row_step,
                min(rows, per_group - fb * rows),
                depth,
                length,
            )

    return kernel


def _tile(
    vector: VectorType,
    chains: int,
    rows: int,
    vectors: int,
    column_step: int,
    activation: str | None,
    low_bound: float,
    high_bound: float,
) -> Any:
    """tile(pixels, offsets, weights, bias, y, first, own, wq, oh, ow, filter_size, row_step, kept, depth, length): computes rows × vectors
    results for the flat pixels from `first` on, and stores those from `own` on that lie in the image, for the first `kept` filters.
    """

    @intrinsic
    def tile(
        typing_context: Any,
        pixels: Any,
        offsets: Any,
        weights: Any,
        bias: Any,
        y: Any,
        first: Any,
        own: Any,
        wq: Any,
        oh: Any,
        ow: Any,
        filter_size: Any,
        row_step: Any,
        kept: Any,
        depth: Any,
        length: Any,
    ) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            image, table, packed, shifts, out = (b.inttoptr(argument, ir.PointerType()) for argument in args[:5])
            first, own, wq, oh, ow, filter_size, row_step, kept, depth, length = args[5:]

            def weight(k: Any) -> Any:
                at = vector.at(b, packed, b.mul(k, i64(rows)))
                return lambda i: vector.load_scalar(b, at, i64(i))

            def operand(k: Any) -> Any:
                at = vector.at(b, image, b.load(b.gep(table, [k], source_etype=I64), align=8, typ=I64))
                return lambda j: vector.load(b, at, i64(j * vector.lanes))

            sums = accumulate(b, vector, chains, depth, length, rows, vectors, weight, operand)
            results = {}
            for i in range(rows):
                shift = vector.splat(b, vector.load_scalar(b, shifts, i64(i)))
                for j in range(vectors):
                    results[i, j] = activate(b, vector, b.fadd(sums[i, j], shift), activation, low_bound, high_bound)
            for j in range(vectors):
                position = b.add(first, i64(j * vector.lanes))
                column = [results[i, j] for i in range(rows)]
                _store_column(b, vector, column, column_step, out, position, own, wq, oh, ow, filter_size, row_step, kept)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 15), emit

    return tile


def _store_column(
    b: Any,
    vector: VectorType,
    column: list[Any],
    column_step: int,
    out: Any,
    position: Any,
    own: Any,
    wq: Any,
    oh: Any,
    ow: Any,
    filter_size: Any,
    row_step: Any,
    kept: Any,
) -> None:
    """Store one vector per filter, piece by piece: a piece is the part of the vector that lies in one row of the image.

    Lane l of the piece in row r, whose lane 0 would have column q (negative after the first row), belongs at r · row_step + (q + l) · step.
    """
    lanes = i64(vector.lanes)
    row, q = b.udiv(position, wq), b.urem(position, wq)
    skipped = smallest(b, lanes, largest(b, i64(0), b.sub(own, position)))
    before = b.block
    head, body, done = b.append_basic_block("piece"), b.append_basic_block("piece.store"), b.append_basic_block("piece.done")
    b.branch(head)
    b.position_at_end(head)
    r, shift = b.phi(I64), b.phi(I64)
    r.add_incoming(row, before)
    shift.add_incoming(q, before)
    low = largest(b, skipped, b.neg(shift))
    inside = b.and_(b.icmp_signed("<", r, oh), b.icmp_signed("<", b.neg(shift), lanes))
    b.cbranch(inside, body, done)
    b.position_at_end(body)
    high = smallest(b, lanes, b.sub(ow, shift))
    at = b.add(b.mul(r, row_step), b.mul(shift, i64(column_step)))
    for i, value in enumerate(column):
        limit = b.select(b.icmp_signed("<", i64(i), kept), high, i64(0))
        place = b.add(at, b.mul(filter_size, i64(i)))
        vector.store_between(b, value, out, place, low, limit, column_step)
    r.add_incoming(b.add(r, i64(1)), b.block)
    shift.add_incoming(b.sub(shift, wq), b.block)
    b.branch(head)
    b.position_at_end(done)


def smallest(b: Any, x: Any, y: Any) -> Any:
    """Signed minimum."""
    return b.select(b.icmp_signed("<", x, y), x, y)


def largest(b: Any, x: Any, y: Any) -> Any:
    """Signed maximum."""
    return b.select(b.icmp_signed(">", x, y), x, y)
