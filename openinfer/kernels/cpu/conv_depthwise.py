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
from openinfer.kernels.cpu.vectors import VectorType, i64


@functools.cache
def conv_depthwise(
    *,
    dtype: str,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    plane: tuple[int, int],
    rows: int,
    vectors: int,
    lanes: int,
    copied: bool,
    flat: bool,
    activation: str | None = None,
    low_bound: float = 0.0,
    high_bound: float = 0.0,
) -> Any:
    """conv_depthwise(x, weights, bias, scratch, y, height, width, top, left, multiplier, channels, oh, ow, low, high).

    A block is one channel of one image, with its `multiplier` filters. `plane` is the size of one phase of the padded plane; unless
    `copied`, the input itself. With `flat`, lines are computed across the plane's rows into scratch, and the columns of the output copied
    from there: for outputs narrower than a vector.
    """
    vector, pointer = VectorType(dtype, lanes), POINTERS[dtype]
    item, taps, across = vector.item_bytes, kernel[0] * kernel[1], vectors * lanes
    copy = phase_copy(dtype=dtype)
    (sh, sw), (hq, wq) = strides, plane
    size = sh * sw * hq * wq
    tile = _tile(vector, kernel, strides, dilations, plane, rows, vectors, activation, low_bound, high_bound)

    @nb.njit(error_model="numpy")
    def run(
        x: int,
        weights: int,
        bias: int,
        scratch: int,
        y: int,
        height: int,
        width: int,
        top: int,
        left: int,
        multiplier: int,
        channels: int,
        oh: int,
        ow: int,
        low: int,
        high: int,
    ) -> None:
        down, line = (1, (oh - 1) * wq + ow) if flat else (oh, ow)
        for block in range(low, high):
            source = x + block * height * width * item
            if copied:
                copy(source, scratch, height, width, top, left, sh, sw, hq, wq, 0, 1)
                source = scratch
            first = block % channels * multiplier
            for m in range(multiplier):
                out = y + (block * multiplier + m) * oh * ow * item
                to = scratch + size * item if flat else out
                step = wq if flat else ow
                for r in range(0, down, rows):
                    row = min(r, down - rows)
                    for q in range(0, line, across):
                        column = min(q, line - across)
                        tile(
                            source + (row * wq + column) * item,
                            weights + (first + m) * taps * item,
                            bias + (first + m) * item,
                            to + (row * step + column) * item,
                            step,
                        )
                if flat:
                    read, write = pointer(to), pointer(out)
                    for r in range(oh):
                        for q in range(ow):
                            write[r * ow + q] = read[r * wq + q]

    return run


def _tile(
    vector: VectorType,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    plane: tuple[int, int],
    rows: int,
    vectors: int,
    activation: str | None,
    low_bound: float,
    high_bound: float,
) -> Any:
    """tile(source, weights, bias, out, step): rows × vectors results, rows `step` elements apart in `out`."""
    (sh, sw), (hq, wq) = strides, plane
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
                    phase = (line % sh * sw + column % sw) * hq * wq
                    for v in range(vectors):
                        loaded = vector.load(b, image, i64(phase + line // sh * wq + column // sw + v * vector.lanes))
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
