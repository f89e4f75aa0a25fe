"""Matrix product with packed weights: C[m, n] = activation(A[m, k] · B[k, n] + bias).

One tile of `rows` × `vectors` vectors of C is computed in registers, a group of vectors and a group of chains of K at a time:

    for each chain (start, length) of the group:     # decided by K alone, see `chains`
        acc[chain][i][j] = 0
        for k in start … start + length: acc[chain][i][j] = fma(A[i][k], B[k][j], acc[chain][i][j])
    total[i][j] = total[i][j] + acc[0][i][j] + …     # left to right
    C[i][j] = activation(total[i][j] + bias[j])

Whatever the groups, the chains are the same and are joined in the same order, so a row has the same bits in every batch. Short chains go
four at a time with one vector, since a total beside the sums lies on the stack (K = 64, 32 rows: 90 GFLOP/s one after another, 116 so,
the machine's peak); long ones one at a time with all vectors, which reads the panel once. B is packed by `ops.dense_packing` into panels of
`vectors` vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.loop import counted, keep_rolled
from openinfer.kernels.cpu.vectors import I64, VectorType, i64, widest
from openinfer.machine import host

PARALLEL_CHAINS = 4
SHORT, LONG = 16, 256
ACCUMULATORS = 16  # that hide the latency of the fma
STREAMED = 128  # steps of a chain from which reading a panel once matters more than keeping the totals out of the stack


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


def _together(rows: int, vectors: int, parts: list[tuple[int, int]]) -> tuple[int, int]:
    """Chains and vectors that a tile sums at a time, within the registers.

    Chains first, where they are short: a total beside the sums of one chain would not fit, and every chain would store and load it.
    """
    if not parts or parts[0][1] >= STREAMED:
        return max(1, min(PARALLEL_CHAINS, ACCUMULATORS // (rows * vectors))), vectors
    room = host().vector_registers - 4
    chains_at_once = max(1, min(len(parts), PARALLEL_CHAINS, room // rows))
    fitting = [count for count in range(1, vectors + 1) if vectors % count == 0 and count * chains_at_once * rows <= room]
    return chains_at_once, max(fitting, default=1)


def _tile(vector: VectorType, k: int, rows: int, vectors: int, activation: str | None, low_bound: float, high_bound: float) -> Any:
    """tile(a, lda, panel, bias, c, ldc, columns): one register tile; stores only `columns` columns."""
    parts = chains(k) if k else []
    together, group = _together(rows, vectors, parts)
    cells = [(i, j) for i in range(rows) for j in range(group)]

    @intrinsic
    def tile(typing_context: Any, a: Any, lda: Any, panel: Any, bias: Any, c: Any, ldc: Any, columns: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            pa, pb, pbias, pc = (b.inttoptr(args[index], ir.PointerType()) for index in (0, 2, 3, 4))
            lda, ldc, columns = args[1], args[5], args[6]
            starts = [b.mul(lda, i64(i)) for i in range(rows)]

            def compute(at: Any, carried: list[Any]) -> list[Any]:
                first = b.mul(at, i64(group * vector.lanes))
                own = vector.at(b, pb, first)
                total: dict[tuple[int, int], Any] = {}
                for index in range(0, len(parts), together):
                    for part in _run_chains(b, vector, parts[index : index + together], pa, starts, own, vectors, group):
                        total = {cell: b.fadd(total[cell], part[cell]) for cell in cells} if total else part
                zero = vector.constant(0.0)
                result = {}
                for i, j in cells:
                    shift = vector.load(b, pbias, b.add(first, i64(j * vector.lanes)))
                    value = b.fadd(total.get((i, j), zero), shift)
                    result[i, j] = activate(b, vector, value, activation, low_bound, high_bound)
                left = b.sub(columns, first)
                places = {(i, j): b.add(b.add(b.mul(ldc, i64(i)), first), i64(j * vector.lanes)) for i, j in cells}
                with b.if_else(b.icmp_signed(">=", left, i64(group * vector.lanes))) as (full, partial):
                    with full:
                        for cell in cells:
                            vector.store(b, result[cell], pc, places[cell])
                    with partial:
                        for i, j in cells:
                            vector.store_first(b, result[i, j], pc, places[i, j], b.sub(left, i64(j * vector.lanes)))
                return carried

            if group == vectors:
                compute(i64(0), [])
            else:
                counted(b, i64(0), i64(vectors // group), [], compute)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), emit

    return tile


def _run_chains(
    b: Any, vector: VectorType, parts: list[tuple[int, int]], pa: Any, starts: list[Any], pb: Any, vectors: int, group: int
) -> list[dict[tuple[int, int], Any]]:
    """Emit the loop over the steps that all `parts` have, then the steps that only the longer ones have; `group` vectors of a panel of
    `vectors`.
    """
    cells = [(i, j) for i in range(len(starts)) for j in range(group)]
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
        sums.append(_step(b, vector, accumulators, b.add(step, i64(start)), pa, starts, pb, vectors, group))
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
            sums[index] = _step(b, vector, sums[index], i64(start + extra), pa, starts, pb, vectors, group)
    return sums


def _step(
    b: Any, vector: VectorType, sums: dict[tuple[int, int], Any], k: Any, pa: Any, starts: list[Any], pb: Any, vectors: int, group: int
) -> Any:
    row = b.mul(k, i64(vectors * vector.lanes))
    weights = [vector.load(b, pb, b.add(row, i64(j * vector.lanes))) for j in range(group)]
    new = {}
    for i, start in enumerate(starts):
        value = vector.splat(b, vector.load_scalar(b, pa, b.add(start, k)))
        for j in range(group):
            new[i, j] = vector.fma(b, value, weights[j], sums[i, j])
    return new


def activate(b: Any, vector: VectorType, value: Any, activation: str | None, low: float, high: float) -> Any:
    zero = vector.constant(0.0)
    if activation == "Relu":
        return vector.at_least(b, value, zero)
    if activation == "LeakyRelu":
        return b.select(b.fcmp_ordered("<", value, zero), b.fmul(value, vector.constant(low)), value)
    if activation == "Clip":
        raised = vector.at_least(b, value, vector.constant(low))
        return b.select(b.fcmp_ordered(">", raised, vector.constant(high)), vector.constant(high), raised)
    return value
