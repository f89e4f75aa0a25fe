"""Matrix product with packed weights: C[m, n] = activation(A[m, k] · B[k, n] + bias).

One tile of `rows` × `vectors` vectors of C stays in registers:

    for each chain (start, length) of K:             # decided by K alone, see `chains`
        acc[i][j] = 0
        for k in start … start + length: acc[i][j] = fma(A[i][k], B[k][j], acc[i][j])
        total[i][j] = total[i][j] + acc[i][j]        # left to right
    C[i][j] = activation(total[i][j] + bias[j])

A single row runs four chains at once to hide the latency of the fma, a tile of rows one after another: the same chains, joined in
the same order, so a row has the same bits in every batch. B is packed by `ops.dense_packing` into panels of `vectors` vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.loop import keep_rolled
from openinfer.kernels.cpu.vectors import I64, VectorType, i64, widest

PARALLEL_CHAINS = 4
SHORT, LONG = 16, 256
ACCUMULATORS = 16  # that hide the latency of the fma


def chains(k: int) -> list[tuple[int, int]]:
    """(start, length) of the accumulation chains of a reduction of length `k`."""
    if k < SHORT:
        return [(0, k)]
    length = min(-(-k // PARALLEL_CHAINS), LONG)
    return [(start, min(length, k - start)) for start in range(0, k, length)]


def tile_heights(rows: int) -> list[int]:
    """Heights of the tiles that serve any number of rows: the full one, a half of it, a quarter, … one row."""
    return [rows >> halvings for halvings in range(rows.bit_length())]


def stack(heights: Sequence[int], arguments: str) -> list[str]:
    """Source of the calls tile0(…), tile1(…), … that walk from `row` to `end`, the highest first."""
    lines = []
    for index, height in enumerate(heights):
        again = "while" if index and height * 2 < heights[index - 1] else "if"  # half of an odd height may fit twice
        lines += [f"        {again} end - row >= {height}:", f"            tile{index}({arguments})", f"            row += {height}"]
    return lines


@functools.cache
def gemm(
    *, dtype: str, k: int, rows: int, vectors: int, activation: str | None = None, low_bound: float = 0.0, high_bound: float = 0.0
) -> Any:
    """gemm(a, packed_b, bias, c, m, n, lda, ldc, low, high); strides in elements; a block is one row tile of one panel.

    `activation`: None, "Relu", "LeakyRelu" (slope `low_bound`) or "Clip" (between the bounds). `bias` is padded to whole panels.
    """
    vector = widest(dtype)
    width, panel_bytes, item = vectors * vector.lanes, k * vectors * vector.lanes * vector.item_bytes, vector.item_bytes
    heights = tile_heights(rows)
    tiles = [_tile(vector, k, height, vectors, activation, low_bound, high_bound) for height in heights]
    lines = [
        "def kernel(a, packed_b, bias, c, m, n, lda, ldc, low, high):",
        f"    stacked = (m + {rows - 1}) // {rows}",
        "    for block in range(low, high):",
        # One panel is the common case of narrow layers; known at compile time, it spares two divisions.
        f"        panel = 0 if n <= {width} else block // stacked",
        f"        row, column = (block - panel * stacked) * {rows}, panel * {width}",
        f"        b, offset = packed_b + panel * {panel_bytes}, bias + column * {item}",
        f"        end = min(m, row + {rows})",
    ]
    lines += stack(heights, f"a + row * lda * {item}, lda, b, offset, c + (row * ldc + column) * {item}, ldc, n - column")
    namespace: dict[str, Any] = {"__name__": "openinfer.generated"} | {f"tile{index}": tile for index, tile in enumerate(tiles)}
    exec(compile("\n".join(lines), "<openinfer dense>", "exec"), namespace)
    return nb.njit(error_model="numpy", forceinline=True)(namespace["kernel"])


def _tile(vector: VectorType, k: int, rows: int, vectors: int, activation: str | None, low_bound: float, high_bound: float) -> Any:
    """tile(a, lda, panel, bias, c, ldc, columns): one register tile; stores only `columns` columns."""
    together = max(1, min(PARALLEL_CHAINS, ACCUMULATORS // (rows * vectors)))
    cells = [(i, j) for i in range(rows) for j in range(vectors)]

    @intrinsic
    def tile(typing_context: Any, a: Any, lda: Any, panel: Any, bias: Any, c: Any, ldc: Any, columns: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            pa, pb, pbias, pc = (b.inttoptr(args[index], ir.PointerType()) for index in (0, 2, 3, 4))
            lda, ldc, columns = args[1], args[5], args[6]
            starts = [b.mul(lda, i64(i)) for i in range(rows)]
            total: dict[tuple[int, int], Any] = {}
            parts = chains(k) if k else []
            for index in range(0, len(parts), together):
                for part in _run_chains(b, vector, parts[index : index + together], pa, starts, pb, vectors):
                    total = {cell: b.fadd(total[cell], part[cell]) for cell in cells} if total else part
            zero = vector.constant(0.0)
            result = {}
            for i, j in cells:
                value = b.fadd(total.get((i, j), zero), vector.load(b, pbias, i64(j * vector.lanes)))
                result[i, j] = activate(b, vector, value, activation, low_bound, high_bound)
            whole = b.icmp_signed(">=", columns, i64(vectors * vector.lanes))
            with b.if_else(whole) as (full, partial):
                with full:
                    for i, j in cells:
                        vector.store(b, result[i, j], pc, b.add(b.mul(ldc, i64(i)), i64(j * vector.lanes)))
                with partial:
                    for i, j in cells:
                        at = b.add(b.mul(ldc, i64(i)), i64(j * vector.lanes))
                        vector.store_first(b, result[i, j], pc, at, b.sub(columns, i64(j * vector.lanes)))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), emit

    return tile


def _run_chains(
    b: Any, vector: VectorType, parts: list[tuple[int, int]], pa: Any, starts: list[Any], pb: Any, vectors: int
) -> list[dict[tuple[int, int], Any]]:
    """Emit the loop over the steps that all `parts` have, then the steps that only the longer ones have."""
    cells = [(i, j) for i in range(len(starts)) for j in range(vectors)]
    zero = vector.constant(0.0)
    shared = min(length for _, length in parts)
    before = b.block
    loop, done = b.append_basic_block("k"), b.append_basic_block("k.done")
    b.branch(loop)
    b.position_at_end(loop)
    step = b.phi(I64)
    step.add_incoming(i64(0), before)
    phis = [{cell: b.phi(vector.type) for cell in cells} for _ in parts]
    sums = []
    for (start, _), accumulators in zip(parts, phis, strict=True):
        for phi in accumulators.values():
            phi.add_incoming(zero, before)
        sums.append(_step(b, vector, accumulators, b.add(step, i64(start)), pa, starts, pb, vectors))
    for accumulators, new in zip(phis, sums, strict=True):
        for cell in cells:
            accumulators[cell].add_incoming(new[cell], loop)
    following = b.add(step, i64(1))
    step.add_incoming(following, loop)
    branch = b.cbranch(b.icmp_signed("<", following, i64(shared)), loop, done)
    if len(cells) * len(parts) >= ACCUMULATORS:
        keep_rolled(b, branch)
    b.position_at_end(done)
    for index, (start, length) in enumerate(parts):
        for extra in range(shared, length):
            sums[index] = _step(b, vector, sums[index], i64(start + extra), pa, starts, pb, vectors)
    return sums


def _step(b: Any, vector: VectorType, sums: dict[tuple[int, int], Any], k: Any, pa: Any, starts: list[Any], pb: Any, vectors: int) -> Any:
    row = b.mul(k, i64(vectors * vector.lanes))
    weights = [vector.load(b, pb, b.add(row, i64(j * vector.lanes))) for j in range(vectors)]
    new = {}
    for i, start in enumerate(starts):
        value = vector.splat(b, vector.load_scalar(b, pa, b.add(start, k)))
        for j in range(vectors):
            new[i, j] = vector.fma(b, value, weights[j], sums[i, j])
    return new


def activate(b: Any, vector: VectorType, value: Any, activation: str | None, low: float, high: float) -> Any:
    zero = vector.constant(0.0)
    if activation == "Relu":
        return vector.maximum(b, value, zero)
    if activation == "LeakyRelu":
        return b.select(b.fcmp_ordered("<", value, zero), b.fmul(value, vector.constant(low)), value)
    if activation == "Clip":
        raised = vector.maximum(b, value, vector.constant(low))
        return b.select(b.fcmp_ordered(">", raised, vector.constant(high)), vector.constant(high), raised)
    return value
