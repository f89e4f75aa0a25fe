"""Depthwise convolution: every filter reads one channel, so memory decides and nothing is gained from a matrix product.

A channel's padded plane is made in the thread's own scratch, where it stays in the nearest cache while all its outputs are computed. A tile
of `rows` rows × `vectors` vectors of pixels stays in registers, and every vector of the plane that it needs is loaded once:

    for each line of the plane under the tile, from the top:
        for each column of the kernel: load; acc[r][v] = fma(weight[tap of row r], loaded, acc[r][v]) for the rows that it serves
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.conv import phase_copy
from openinfer.kernels.cpu.dense import activate
from openinfer.kernels.cpu.pointers import POINTERS
from openinfer.kernels.cpu.row_copy import copy_row, split_row
from openinfer.kernels.cpu.vectors import VectorType, i64, widest


@functools.cache
def conv_depthwise(
    *,
    dtype: str,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    size: tuple[int, int],
    output: tuple[int, int],
    plane: tuple[int, int],
    rows: int,
    vectors: int,
    lanes: int,
    together: int,
    copied: bool,
    flat: bool,
    activation: str | None = None,
    low_bound: float = 0.0,
    high_bound: float = 0.0,
) -> Any:
    """conv_depthwise(x, weights, bias, scratch, y, top, left, multiplier, channels, low, high).

    A block is one channel of one image, with its `multiplier` filters; `size` is that of the input, `output` of the output, `plane` of one
    phase of the padded plane, which is the input itself unless `copied`. With `flat`, lines are computed across the plane's rows into
    scratch, and the columns of the output copied from there: for outputs narrower than a vector. `together` channels take each stage in
    turn, so that no vector is read while the stores that it is made of are still under way. Scratch has a vector of slack behind every
    plane and line.
    """
    vector, pointer = VectorType(dtype, lanes), POINTERS[dtype]
    item, taps, across = vector.item_bytes, kernel[0] * kernel[1], vectors * lanes
    copy = phase_copy.__wrapped__(dtype=dtype)  # its own: one that is inlined cannot be called
    (sh, sw), (hq, wq) = strides, plane
    (height, width), (oh, ow) = size, output
    # Behind each phase there is room for what its last row leaves behind it.
    phase = hq * wq + widest(dtype).lanes if copied and sw <= 2 else hq * wq
    elements = sh * sw * phase
    apart = wq if flat else ow
    down, line = (1, (oh - 1) * wq + ow) if flat else (oh, ow)
    slack = widest(dtype).lanes
    by_row = copied and sw <= 2
    row_split = split_row(widest(dtype), width)
    row_in, row_out = copy_row(widest(dtype), width, masked=False), copy_row(widest(dtype), ow, masked=True)
    tile = _tile(vector, kernel, strides, dilations, wq, phase, rows, vectors, activation, low_bound, high_bound)

    @nb.njit(error_model="numpy")
    def run(
        x: int, weights: int, bias: int, scratch: int, y: int, top: int, left: int, multiplier: int, channels: int, low: int, high: int
    ) -> None:
        if by_row:
            # The pads are the same in every channel, and rows leave nothing but zeros behind them.
            plane_of = pointer(scratch)
            for i in range(together * (elements + slack)):
                plane_of[i] = 0
        lines = scratch + together * (elements + slack) * item
        for start in range(low, high, together):
            stop = min(start + together, high)
            for block in range(start, stop):
                source = x + block * height * width * item
                own = scratch + (block - start) * (elements + slack) * item
                if by_row:
                    for r in range(height):
                        line_of = own + ((top + r) % sh * sw * phase + (top + r) // sh * wq) * item
                        if sw == 1:
                            row_in(source + r * width * item, line_of + left * item)
                        else:
                            even = line_of + (left % 2 * phase + left // 2) * item
                            odd = line_of + ((left + 1) % 2 * phase + (left + 1) // 2) * item
                            row_split(source + r * width * item, even, odd)
                elif copied:
                    copy(source, own, height, width, top, left, sh, sw, hq, wq, 0, 1)
            for m in range(multiplier):
                for block in range(start, stop):
                    source = scratch + (block - start) * (elements + slack) * item if copied else x + block * height * width * item
                    f = block % channels * multiplier + m
                    to = lines + (block - start) * (line + slack) * item if flat else y + (block * multiplier + m) * oh * ow * item
                    for r in range(0, down, rows):
                        row = min(r, down - rows)
                        for q in range(0, line, across):
                            column = min(q, line - across)
                            tile(
                                source + (row * wq + column) * item,
                                weights + f * taps * item,
                                bias + f * item,
                                to + (row * apart + column) * item,
                                apart,
                            )
                if flat:
                    for block in range(start, stop):
                        to, out = lines + (block - start) * (line + slack) * item, y + (block * multiplier + m) * oh * ow * item
                        for r in range(oh):
                            row_out(to + r * wq * item, out + r * ow * item)

    return run


def _tile(
    vector: VectorType,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    wq: int,
    phase: int,
    rows: int,
    vectors: int,
    activation: str | None,
    low_bound: float,
    high_bound: float,
) -> Any:
    """tile(source, weights, bias, out, step): rows × vectors results, rows `step` elements apart in `out`."""
    sh, sw = strides
    # line of the padded input → the (row, kernel row) pairs that it serves
    lines: dict[int, list[tuple[int, int]]] = {}
    for row in range(rows):
        for ky in range(kernel[0]):
            lines.setdefault(row * sh + ky * dilations[0], []).append((row, ky))

    @intrinsic
    def tile(typing_context: Any, source: Any, weights: Any, bias: Any, out: Any, step: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            image, packed, shift, to = (b.inttoptr(argument, ir.PointerType()) for argument in args[:4])
            taps = [vector.splat(b, vector.load_scalar(b, packed, i64(t))) for t in range(kernel[0] * kernel[1])]
            sums: dict[tuple[int, int], Any] = {}
            for line in sorted(lines):
                for kx in range(kernel[1]):
                    column = kx * dilations[1]
                    at = (line % sh * sw + column % sw) * phase
                    for v in range(vectors):
                        loaded = vector.load(b, image, i64(at + line // sh * wq + column // sw + v * vector.lanes))
                        for row, ky in lines[line]:
                            weight = taps[ky * kernel[1] + kx]
                            old = sums.get((row, v))
                            sums[row, v] = b.fmul(weight, loaded) if old is None else vector.fma(b, weight, loaded, old)
            offset = vector.splat(b, vector.load_scalar(b, shift, i64(0)))
            for (row, v), value in sums.items():
                result = activate(b, vector, b.fadd(value, offset), activation, low_bound, high_bound)
                vector.store(b, result, to, b.add(b.mul(args[4], i64(row)), i64(v * vector.lanes)))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), emit

    return tile
