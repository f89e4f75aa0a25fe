"""Matrix product with operands that only the call knows, in the order of `dense.chains`.

`pack_matrix` lays B out in panels once per matrix; `product` then runs the register tile of `dense` with a run-time length:

    for each chain of K:                             # one after another; a tile of one row joins the same chains
        acc[i][j] = 0
        for k in chain: acc[i][j] = fma(A[i][k], B[k][j], acc[i][j])
        total[i][j] = total[i][j] + acc[i][j]
    C[i][j] = activation(total[i][j])
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.dense import ACCUMULATORS, LONG, PARALLEL_CHAINS, SHORT, activate, stack, tile_heights
from openinfer.kernels.cpu.loop import counted
from openinfer.kernels.cpu.pointers import POINTERS
from openinfer.kernels.cpu.vectors import VectorType, i64, widest


@functools.cache
def pack_matrix(*, dtype: str, width: int) -> Any:
    """pack_matrix(b, packed, k, n, step_k, step_n, low, high): panels of `width` columns, zero beyond column n.

    B lies at `step_k`, `step_n` elements; a block is one panel of one matrix.
    """
    pointer = POINTERS[dtype]

    @nb.njit(error_model="numpy")
    def kernel(b: int, packed: int, k: int, n: int, step_k: int, step_n: int, low: int, high: int) -> None:
        read, write = pointer(b), pointer(packed)
        panels = (n + width - 1) // width
        for block in range(low, high):
            matrix, panel = block // panels, block % panels
            column = panel * width
            columns = min(width, n - column)
            at, to = matrix * k * n + column * step_n, block * k * width
            for _ in range(k):
                for j in range(columns):
                    write[to + j] = read[at + j * step_n]
                for j in range(columns, width):
                    write[to + j] = 0
                at += step_k
                to += width

    return kernel


@functools.cache
def product(
    *, dtype: str, rows: int, vectors: int, outer: int, activation: str | None = None, low_bound: float = 0.0, high_bound: float = 0.0
) -> Any:
    """product(a, packed_b, c, m, n, k, step_m, step_k, sizes…, strides of A…, strides of B…, low, high).

    A lies at `step_m`, `step_k` elements; the `outer` sizes are those of the batch, their strides count matrices. A block is one row tile
    of one panel of one product.
    """
    vector = widest(dtype)
    item = vector.item_bytes
    heights = tile_heights(rows)
    tiles = [_tile(vector, height, vectors, activation, low_bound, high_bound) for height in heights]
    dims = [f"{name}{axis}" for name in ("d", "sa", "sb") for axis in range(outer)]
    lines = [
        f"def kernel(a, b, c, m, n, k, step_m, step_k, {', '.join(dims)}, low, high):",
        f"    tiles, panels = (m + {rows - 1}) // {rows}, (n + {vectors * vector.lanes - 1}) // {vectors * vector.lanes}",
        "    for block in range(low, high):",
        "        rest = block",
        "        tile_index, rest = rest % tiles, rest // tiles",
        "        panel, matrix = rest % panels, rest // panels",
        "        rest = matrix",
        "        at, packed = 0, 0",
    ]
    for axis in reversed(range(outer)):
        lines += [f"        i, rest = rest % d{axis}, rest // d{axis}", f"        at, packed = at + i * sa{axis}, packed + i * sb{axis}"]
    lines += [
        f"        row, column = tile_index * {rows}, panel * {vectors * vector.lanes}",
        f"        left, to = a + at * m * k * {item}, c + (matrix * m * n + column) * {item}",
        f"        right = b + (packed * panels + panel) * k * {vectors * vector.lanes * item}",
        f"        end = min(m, row + {rows})",
        *stack(heights, f"left + row * step_m * {item}, step_m, step_k, right, k, to + row * n * {item}, n, n - column"),
    ]
    namespace: dict[str, Any] = {"__name__": "openinfer.generated"} | {f"tile{index}": tile for index, tile in enumerate(tiles)}
    exec(compile("\n".join(lines), "<openinfer product>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])


def _tile(vector: VectorType, rows: int, vectors: int, activation: str | None, low_bound: float, high_bound: float) -> Any:
    """tile(a, step_m, step_k, panel, k, c, ldc, columns): one register tile; stores only `columns` columns."""
    cells = [(i, j) for i in range(rows) for j in range(vectors)]
    zero = vector.constant(0.0)

    @intrinsic
    def tile(typing_context: Any, a: Any, step_m: Any, step_k: Any, panel: Any, k: Any, c: Any, ldc: Any, columns: Any) -> Any:
        def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
            pa, pb, pc = (b.inttoptr(args[index], ir.PointerType()) for index in (0, 3, 5))
            _, step_m, step_k, _, k, _, ldc, columns = args
            starts = [b.mul(step_m, i64(i)) for i in range(rows)]
            quarter = b.udiv(b.add(k, i64(PARALLEL_CHAINS - 1)), i64(PARALLEL_CHAINS))
            long = b.select(b.icmp_signed("<", quarter, i64(LONG)), quarter, i64(LONG))
            length = b.select(b.icmp_signed("<", k, i64(SHORT)), i64(SHORT), long)
            count = b.udiv(b.add(k, b.sub(length, i64(1))), length)

            def multiply(at: Any, sums: list[Any]) -> list[Any]:
                row, column = b.mul(at, i64(vectors * vector.lanes)), b.mul(at, step_k)
                weights = [vector.load(b, pb, b.add(row, i64(j * vector.lanes))) for j in range(vectors)]
                values = [vector.splat(b, vector.load_scalar(b, pa, b.add(start, column))) for start in starts]
                return [vector.fma(b, values[i], weights[j], total) for (i, j), total in zip(cells, sums, strict=True)]

            def chain(index: Any, totals: list[Any]) -> list[Any]:
                start = b.mul(index, length)
                end = b.add(start, length)
                stop = b.select(b.icmp_signed("<", end, k), end, k)
                sums = counted(b, start, stop, [zero] * len(cells), multiply, rolled=len(cells) >= ACCUMULATORS)
                return [b.fadd(total, part) for total, part in zip(totals, sums, strict=True)]

            totals = counted(b, i64(0), count, [zero] * len(cells), chain)
            result = {
                cell: activate(b, vector, total, activation, low_bound, high_bound) for cell, total in zip(cells, totals, strict=True)
            }
            places = {(i, j): b.add(b.mul(ldc, i64(i)), i64(j * vector.lanes)) for i, j in cells}
            with b.if_else(b.icmp_signed(">=", columns, i64(vectors * vector.lanes))) as (full, partial):
                with full:
                    for cell in cells:
                        vector.store(b, result[cell], pc, places[cell])
                with partial:
                    for i, j in cells:
                        vector.store_first(b, result[i, j], pc, places[i, j], b.sub(columns, i64(j * vector.lanes)))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 8), emit

    return tile
