"""Convolution as a matrix product over flat padded planes: see `ops.conv` for the layout.

A tile of `rows` filters × `vectors` vectors of neighbouring pixels stays in registers; the order of the reduction is that of
`dense.chains`, so a pixel has the same bits in every batch and on every thread.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.dense import activate, chains
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
    *, dtype: str, depth: int, rows: int, vectors: int, activation: str | None = None, low_bound: float = 0.0, high_bound: float = 0.0
) -> Any:
    """conv(plane, offsets, weights, bias, tile, y, image, group, groups, per_group, filter_blocks, chunks, pixels, wq, oh, ow,
    low, high).

    `image` and `group` are elements of the planes of one image, of one group; `wq` the width of a plane; `oh`, `ow` the output's size.
    """
    vector, pointer = widest(dtype), POINTERS[dtype]
    width, item = vectors * vector.lanes, vector.item_bytes
    tile_of = _tile(vector, depth, rows, vectors, activation, low_bound, high_bound)

    @nb.njit(error_model="numpy")
    def kernel(
        plane: int,
        offsets: int,
        weights: int,
        bias: int,
        tile: int,
        y: int,
        image: int,
        group: int,
        groups: int,
        per_group: int,
        filter_blocks: int,
        chunks: int,
        pixels: int,
        wq: int,
        oh: int,
        ow: int,
        low: int,
        high: int,
    ) -> None:
        computed, out = pointer(tile), pointer(y)
        for block in range(low, high):
            first = (block % chunks) * width
            rest = block // chunks
            fb = rest % filter_blocks
            rest = rest // filter_blocks
            g, n = rest % groups, rest // groups
            packed = g * filter_blocks + fb
            tile_of(
                plane + (n * image + g * group + first) * item,
                offsets,
                weights + packed * depth * rows * item,
                bias + packed * rows * item,
                tile,
            )
            kept = min(rows, per_group - fb * rows)
            start = ((n * groups + g) * per_group + fb * rows) * oh * ow
            p, end = first, min(first + width, pixels)
            while p < end:
                row, column = p // wq, p % wq
                run = min(wq - column, end - p)
                for i in range(kept):
                    to, at = start + (i * oh + row) * ow + column, i * width + p - first
                    for j in range(min(run, ow - column)):
                        out[to + j] = computed[at + j]
                p += run

    return kernel


def _tile(vector: VectorType, depth: int, rows: int, vectors: int, activation: str | None, low_bound: float, high_bound: float) -> Any:
    """tile(pixels, offsets, weights, bias, out): rows × vectors results, stored whole to `out`."""
    cells = [(i, j) for i in range(rows) for j in range(vectors)]

    @intrinsic
    def tile(typing_context: Any, pixels: Any, offsets: Any, weights: Any, bias: Any, out: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            image, table, packed, shifts, to = (b.inttoptr(argument, ir.PointerType()) for argument in args)
            total: dict[tuple[int, int], Any] = {}
            for start, length in chains(depth):
                part = _chain(b, vector, start, length, image, table, packed, rows, vectors)
                total = {cell: b.fadd(total[cell], part[cell]) for cell in cells} if total else part
            for i, j in cells:
                shift = vector.splat(b, vector.load_scalar(b, shifts, i64(i)))
                value = activate(b, vector, b.fadd(total[i, j], shift), activation, low_bound, high_bound)
                vector.store(b, value, to, i64((i * vectors + j) * vector.lanes))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), emit

    return tile


def _chain(
    b: Any, vector: VectorType, start: int, length: int, image: Any, table: Any, packed: Any, rows: int, vectors: int
) -> dict[tuple[int, int], Any]:
    cells = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = vector.constant(0.0)
    before = b.block
    loop, done = b.append_basic_block("k"), b.append_basic_block("k.done")
    b.branch(loop)
    b.position_at_end(loop)
    k = b.phi(I64)
    k.add_incoming(i64(start), before)
    sums = {cell: b.phi(vector.type) for cell in cells}
    for phi in sums.values():
        phi.add_incoming(zero, before)
    offset = b.load(b.gep(table, [k], source_etype=I64), align=8, typ=I64)
    pixels = [vector.load(b, image, b.add(offset, i64(j * vector.lanes))) for j in range(vectors)]
    row = b.mul(k, i64(rows))
    new = {}
    for i in range(rows):
        weight = vector.splat(b, vector.load_scalar(b, packed, b.add(row, i64(i))))
        for j in range(vectors):
            new[i, j] = vector.fma(b, weight, pixels[j], sums[i, j])
    for cell in cells:
        sums[cell].add_incoming(new[cell], loop)
    following = b.add(k, i64(1))
    k.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, i64(start + length)), loop, done)
    b.position_at_end(done)
    return new
