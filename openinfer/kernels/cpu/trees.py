"""Tree ensembles by interleaved traversal: `width` trees walk one row together, so that their cache misses overlap.

    for each group of trees: walk FIRST levels, note each tree's place; queue the trees that are not at a leaf yet
    while the queue is not empty: for each group of the queue: walk NEXT levels; keep the trees that are not at a leaf yet
    sum the places' thresholds                          # a leaf's threshold is its value

The queue is compacted without branches. Sums are four float64 chains by the tree's position in the file, joined in order: the same bits
for every width. A row that holds NaN takes the plain walk over the trees as the file has them.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu.pointers import f32, f64, i32, i64, u32

SUMS = 4
FIRST, NEXT = 7, 3  # levels; boosted trees are mostly through after the first walk


@functools.cache
def trees(*, width: int, bits: int, features: int) -> Any:
    """trees(x, nodes, starts, plain, plain_starts, scale, row, places, queue, y, padded, count, low, high): a block is a row."""
    walk = _walk(width, bits, features)

    @nb.njit(error_model="numpy")
    def kernel(
        x: int,
        nodes: int,
        starts: int,
        plain: int,
        plain_starts: int,
        scale: int,
        row: int,
        places: int,
        queue: int,
        y: int,
        padded: int,
        count: int,
        low: int,
        high: int,
    ) -> None:
        given, mine, out, factors = f32(x), f32(row), f32(y), f64(scale)
        mine[features] = -np.inf
        for index in range(low, high):
            unordered = 0
            for j in range(features):
                value = given[index * features + j]
                mine[j] = value
                unordered += value != value
            total = walk(row, nodes, starts, places, queue, padded) if unordered == 0 else plain_walk(row, plain, plain_starts, count)
            out[index] = np.float32(total * factors[0] + factors[1])

    return kernel


def _walk(width: int, bits: int, features: int) -> Any:
    """walk(row, nodes, starts, places, queue, padded) -> float64 sum of one row's leaves."""
    lanes, mask = range(width), (1 << bits) - 1
    step = [
        line
        for k in lanes
        for line in (f"w = i64_(link[i{k} * 2 + 1])", f"i{k} = (w >> {bits}) + (1 if x[w & {mask}] > threshold[i{k} * 2] else 0)")
    ]

    def note(indent: str, tree: str) -> list[str]:
        """Store each place; queue the trees that are not at a leaf."""
        lines = [f"{indent}place[{tree.format(k)}] = i{k}" for k in lanes]
        for k in lanes:
            lines += [f"{indent}waiting[n] = {tree.format(k)}", f"{indent}n += 1 if (link[i{k} * 2 + 1] & {mask}) != {features} else 0"]
        return lines

    pad = [f"for k in range({width}):", "    waiting[n + k] = padded"]
    lines = [
        "def walk(row, nodes, starts, places, queue, padded):",
        "    x, threshold, link, start, place, waiting = f32(row), f32(nodes), u32(nodes), i32(starts), i32(places), i32(queue)",
        "    place[padded] = start[padded]",
        "    n = 0",
        f"    for g in range(0, padded, {width}):",
        *(f"        i{k} = i64_(start[g + {k}])" for k in lanes),
        f"        for _ in range({FIRST}):",
        *(f"            {line}" for line in step),
        *note("        ", "g + {}"),
        *(f"    {line}" for line in pad),
        "    while n > 0:",
        "        left = n",
        "        n = 0",
        f"        for g in range(0, left, {width}):",
        *(f"            j{k} = waiting[g + {k}]" for k in lanes),
        *(f"            i{k} = i64_(place[j{k}])" for k in lanes),
        f"            for _ in range({NEXT}):",
        *(f"                {line}" for line in step),
        *note("            ", "j{}"),
        *(f"        {line}" for line in pad),
        *(f"    t{s} = 0.0" for s in range(SUMS)),
        f"    for g in range(0, padded - padded % {SUMS}, {SUMS}):",
        *(f"        t{s} += threshold[place[g + {s}] * 2]" for s in range(SUMS)),
        *(f"    if padded % {SUMS} > {s}:\n        t{s} += threshold[place[padded - padded % {SUMS} + {s}] * 2]" for s in range(SUMS - 1)),
        "    return ((t0 + t1) + t2) + t3",
    ]
    namespace: dict[str, Any] = {"f32": f32, "u32": u32, "i32": i32, "i64_": nb.int64, "__name__": "openinfer.generated"}
    exec(compile("\n".join(lines), "<openinfer trees>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["walk"])


@nb.njit(error_model="numpy")
def plain_walk(row: int, plain: int, starts: int, count: int) -> Any:
    """The sum of one row's leaves, with ONNX's treatment of NaN: a comparison with NaN is false, unless the node sends NaN to its true
    branch.
    """
    x, node, start = f32(row), f64(plain), i64(starts)
    total = 0.0
    for tree in range(count):
        at = start[tree]
        while node[at * 7] != 0.0:
            mode, value, threshold = node[at * 7], float(x[int(node[at * 7 + 1])]), node[at * 7 + 2]
            if value != value:
                taken = node[at * 7 + 5] != 0.0
            elif mode == 1.0:
                taken = value <= threshold
            elif mode == 2.0:
                taken = value < threshold
            elif mode == 3.0:
                taken = value >= threshold
            else:
                taken = value > threshold
            at = start[tree] + int(node[at * 7 + 3] if taken else node[at * 7 + 4])
        total += float(np.float32(node[at * 7 + 6]))
    return total
