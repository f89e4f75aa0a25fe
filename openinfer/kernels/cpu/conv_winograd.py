"""3×3 convolution by Winograd's minimal filtering, F(2×2, 3×3): 16 products where the direct sum takes 36.

    U[t] = G g Gᵀ            for every filter and channel, when the model loads (t = 0 … 15)
    V[t] = Bᵀ d B            for every channel and 4×4 patch d of the padded input; patches are 2 apart
    M[t] = Σ over channels of U[t] · V[t]          sixteen matrix products
    Y    = Aᵀ M A            the 2×2 outputs of every filter and patch

A block is a band of patch rows, small enough for V to stay in the second cache, with all filters or a share of them. Patches lie in the
vector lanes throughout; the input is split into even and odd rows and columns first, so that all loads are contiguous.
Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016.
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
from openinfer.kernels.cpu.row_copy import split_row
from openinfer.kernels.cpu.vectors import I32, VectorType, i64, widest
from openinfer.ops.conv_geometry import chain_length, chains

PRODUCTS = 16


@functools.cache
def conv_winograd(
    *,
    dtype: str,
    channels: int,
    rows: int,
    vectors: int,
    across: int,
    band: int,
    pitch: int,
    size: tuple[int, int],
    activation: str | None = None,
    low_bound: float = 0.0,
    high_bound: float = 0.0,
) -> Any:
    """conv_winograd(x, weights, bias, split, patches, products, y, top, left, filters, down, oh, ow, shares, low, high).

    `across` and `down` count the patches; `band` rows of them make a block, of which `shares` divide the filters. Per thread: `split`
    holds one channel of a band, `patches` V as [16, channels, pitch], `products` M of one tile as [16, rows, vectors].
    """
    vector, pointer = widest(dtype), POINTERS[dtype]
    item, lanes = vector.item_bytes, vector.lanes
    width, line = vectors * lanes, across + 1
    phase = (band + 1) * line + lanes  # room for what the last row leaves behind it
    height, row_width = size
    row_split = split_row(vector, row_width)
    into = _transform_input(vector, phase, line, channels * pitch)
    multiply = _multiply(vector, channels, rows, vectors, pitch)
    out_of = _transform_output(vector, rows * width, activation, low_bound, high_bound)

    @nb.njit(error_model="numpy")
    def kernel(
        x: int,
        weights: int,
        bias: int,
        split: int,
        patches: int,
        products: int,
        y: int,
        top: int,
        left: int,
        filters: int,
        down: int,
        oh: int,
        ow: int,
        shares: int,
        low: int,
        high: int,
    ) -> None:
        bands, blocks = (down + band - 1) // band, (filters + rows - 1) // rows
        shift, out, pairs = pointer(bias), pointer(y), pointer(split)
        for block in range(low, high):
            share = block % shares
            rest = block // shares
            first = (rest % bands) * band
            n = rest // bands
            count = min(band, down - first)
            for i in range(4 * phase + lanes):
                pairs[i] = 0
            for c in range(channels):
                source = x + (n * channels + c) * height * row_width * item
                # Rows outside the image keep the zeros; so do the pads, since a row leaves nothing else behind it.
                start = 2 * first - top
                for r in range(max(0, -start), min(2 * count + 2, height - start)):
                    to = split + ((r % 2 * 2) * phase + r // 2 * line) * item
                    even, odd = to + (left % 2 * phase + left // 2) * item, to + ((left + 1) % 2 * phase + (left + 1) // 2) * item
                    row_split(source + (start + r) * row_width * item, even, odd)
                for i in range(count):
                    for j in range(0, across, lanes):
                        into(split + (i * line + j) * item, patches + (c * pitch + i * across + j) * item)
            total = count * across
            for fb in range(blocks * share // shares, blocks * (share + 1) // shares):
                for p in range(0, total, width):
                    for t in range(PRODUCTS):
                        multiply(
                            patches + (t * channels * pitch + p) * item,
                            weights + (fb * PRODUCTS + t) * channels * rows * item,
                            products + t * rows * width * item,
                        )
                    for r in range(min(rows, filters - fb * rows)):
                        f = fb * rows + r
                        for v in range(vectors):
                            # The channel is used up: its place takes the two rows of outputs until they are written.
                            out_of(
                                products + (r * width + v * lanes) * item,
                                shift[f],
                                split + 2 * v * lanes * item,
                                split + 2 * (width + v * lanes) * item,
                            )
                        at, end = p, min(p + width, total)
                        while at < end:
                            i, j = at // across, at % across
                            run = min(across - j, end - at)
                            columns = min(2 * run, ow - 2 * j)
                            for a in range(min(2, oh - 2 * (first + i))):
                                to = ((n * filters + f) * oh + 2 * (first + i) + a) * ow + 2 * j
                                read = 2 * (a * width + at - p)
                                for q in range(columns):
                                    out[to + q] = pairs[read + q]
                            at += run

    return kernel


def _transform_input(vector: VectorType, phase: int, line: int, stride: int) -> Any:
    """into(split, patches): V of `lanes` neighbouring patches of one channel; V[t] lies `stride` elements after V[t - 1]."""

    @intrinsic
    def into(typing_context: Any, split: Any, patches: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            source, to = (b.inttoptr(argument, ir.PointerType()) for argument in args)

            def turn(d: list[Any]) -> list[Any]:
                return [b.fsub(d[0], d[2]), b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[1], d[3])]

            def load(r: int, c: int) -> Any:
                return vector.load(b, source, i64((r % 2 * 2 + c % 2) * phase + r // 2 * line + c // 2))

            columns = [turn([load(r, c) for r in range(4)]) for c in range(4)]
            for r in range(4):
                for c, value in enumerate(turn([columns[c][r] for c in range(4)])):
                    vector.store(b, value, to, i64((4 * r + c) * stride))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), emit

    return into


def _multiply(vector: VectorType, channels: int, rows: int, vectors: int, pitch: int) -> Any:
    """multiply(patches, weights, products): one tile of M[t]."""

    @intrinsic
    def multiply(typing_context: Any, patches: Any, weights: Any, products: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            source, packed, to = (b.inttoptr(argument, ir.PointerType()) for argument in args)

            def weight(k: Any) -> Any:
                at = vector.at(b, packed, b.mul(k, i64(rows)))
                return lambda i: vector.load_scalar(b, at, i64(i))

            def patch(k: Any) -> Any:
                at = vector.at(b, source, b.mul(k, i64(pitch)))
                return lambda j: vector.load(b, at, i64(j * vector.lanes))

            depth, length = i64(channels), i64(chain_length(channels))
            for (i, j), value in accumulate(b, vector, chains(channels), depth, length, rows, vectors, weight, patch).items():
                vector.store(b, value, to, i64((i * vectors + j) * vector.lanes))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp), emit

    return multiply


def _transform_output(vector: VectorType, stride: int, activation: str | None, low_bound: float, high_bound: float) -> Any:
    """out_of(products, bias, upper, lower): the two rows of outputs of `lanes` patches, 2 · lanes elements each."""

    @intrinsic
    def out_of(typing_context: Any, products: Any, bias: Any, upper: Any, lower: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            source, *places = (b.inttoptr(args[i], ir.PointerType()) for i in (0, 2, 3))
            shift = vector.splat(b, args[1])

            def turn(m: list[Any]) -> list[Any]:
                middle, difference = b.fadd(m[1], m[2]), b.fsub(m[1], m[2])
                return [b.fadd(m[0], middle), b.fsub(difference, m[3])]

            columns = [turn([vector.load(b, source, i64((4 * r + c) * stride)) for r in range(4)]) for c in range(4)]
            for a, place in enumerate(places):
                left, right = (
                    activate(b, vector, b.fadd(value, shift), activation, low_bound, high_bound)
                    for value in turn([columns[c][a] for c in range(4)])
                )
                for half in range(2):
                    start = half * vector.lanes // 2
                    mask = [side * vector.lanes + start + k for k in range(vector.lanes // 2) for side in (0, 1)]
                    woven = b.shuffle_vector(left, right, ir.Constant(ir.VectorType(I32, vector.lanes), mask))
                    vector.store(b, woven, place, i64(half * vector.lanes))
            return context.get_dummy_value()

        kind = {"float32": types.float32, "float64": types.float64}[vector.dtype]
        return types.void(types.intp, kind, types.intp, types.intp), emit

    return out_of
