"""The register tile that the convolution kernels share: `rows` scalars, broadcast, times `vectors` vectors, summed over a depth.

for each chain of the depth:                       # decided by the depth alone, see `ops.conv_geometry.chain_length`
    acc[i][j] = 0
    for k in the chain: acc[i][j] = fma(broadcast(scalars[k, i]), load(vectors[k, j]), acc[i][j])
    total[i][j] = total[i][j] + acc[i][j]          # left to right
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openinfer.kernels.cpu.loop import keep_rolled
from openinfer.kernels.cpu.vectors import I64, VectorType, i64

Cells = dict[tuple[int, int], Any]


def accumulate(
    b: Any,
    vector: VectorType,
    count: int,
    depth: Any,
    length: Any,
    rows: int,
    vectors: int,
    scalars: Callable[[Any], Callable[[int], Any]],
    operands: Callable[[Any], Callable[[int], Any]],
) -> Cells:
    """Emit the sums as vector values. `count` is `chains(depth)`; `depth` and `length`, its `chain_length`, are values of the program.
    `scalars(k)` gives a function from a row to its scalar (loaded), `operands(k)` one from a position to its vector; both emit their
    address arithmetic once a step.
    """
    zero = vector.constant(0.0)
    cells = [(i, j) for i in range(rows) for j in range(vectors)]
    if count == 0:
        return dict.fromkeys(cells, zero)
    if count == 1:
        return _chain(b, vector, i64(0), depth, cells, rows, vectors, scalars, operands)
    before = b.block
    loop, done = b.append_basic_block("chain"), b.append_basic_block("chain.done")
    b.branch(loop)
    b.position_at_end(loop)
    start = b.phi(I64)
    start.add_incoming(i64(0), before)
    totals = {cell: b.phi(vector.type) for cell in cells}
    for phi in totals.values():
        phi.add_incoming(zero, before)
    following = b.add(start, length)
    limit = b.select(b.icmp_signed("<", following, depth), following, depth)
    part = _chain(b, vector, start, limit, cells, rows, vectors, scalars, operands)
    sums = {cell: b.fadd(totals[cell], part[cell]) for cell in cells}
    start.add_incoming(following, b.block)
    for cell in cells:
        totals[cell].add_incoming(sums[cell], b.block)
    b.cbranch(b.icmp_signed("<", following, depth), loop, done)
    b.position_at_end(done)
    return sums


def _chain(
    b: Any,
    vector: VectorType,
    start: Any,
    limit: Any,
    cells: list[tuple[int, int]],
    rows: int,
    vectors: int,
    scalars: Callable[[Any], Callable[[int], Any]],
    operands: Callable[[Any], Callable[[int], Any]],
) -> Cells:
    zero = vector.constant(0.0)
    before = b.block
    loop, done = b.append_basic_block("k"), b.append_basic_block("k.done")
    b.branch(loop)
    b.position_at_end(loop)
    k = b.phi(I64)
    k.add_incoming(start, before)
    sums = {cell: b.phi(vector.type) for cell in cells}
    for phi in sums.values():
        phi.add_incoming(zero, before)
    operand = operands(k)
    loaded = [operand(j) for j in range(vectors)]
    scalar = scalars(k)
    new: Cells = {}
    for i in range(rows):
        value = vector.splat(b, scalar(i))
        for j in range(vectors):
            new[i, j] = vector.fma(b, value, loaded[j], sums[i, j])
    following = b.add(k, i64(1))
    k.add_incoming(following, b.block)
    for cell in cells:
        sums[cell].add_incoming(new[cell], b.block)
    keep_rolled(b, b.cbranch(b.icmp_signed("<", following, limit), loop, done))
    b.position_at_end(done)
    return new
