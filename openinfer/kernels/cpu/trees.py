"""Tree ensembles by interleaved traversal: `width` trees walk one row together, so that their cache misses overlap.

    for each group of trees of similar depth:
        i0 = i1 = … = first node of each tree
        for each level: i0 = child[i0] + (x[feature[i0]] > threshold[i0]); i1 = …
        sum[0] += threshold[i0]; sum[1] += threshold[i1]; …        # a leaf's threshold is its value

Four float64 sums, by position within the sorted trees, joined in order: the same bits for every width that is a multiple of four.
A row that holds NaN takes the plain walk over the trees as the file has them.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu.pointers import f32, f64, i64, u32

SUMS = 4


@functools.cache
def trees(*, width: int, bits: int) -> Any:
    """trees(x, nodes, starts, depths, plain, plain_starts, scale, row, y, groups, count, features, low, high): a block is a row."""
    walk = _walk(width, bits)

    @nb.njit(error_model="numpy")
    def kernel(
        x: int,
        nodes: int,
        starts: int,
        depths: int,
        plain: int,
        plain_starts: int,
        scale: int,
        row: int,
        y: int,
        groups: int,
        count: int,
        features: int,
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
            total = walk(row, nodes, starts, depths, groups) if unordered == 0 else plain_walk(row, plain, plain_starts, count)
            out[index] = np.float32(total * factors[0] + factors[1])

    return kernel


def _walk(width: int, bits: int) -> Any:
    """walk(row, nodes, starts, depths, groups) -> float64 sum of one row's leaves."""
    lanes = range(width)
    lines = [
        "def walk(row, nodes, starts, depths, groups):",
        "    x, threshold, link, start, depth = f32(row), f32(nodes), u32(nodes), i64(starts), i64(depths)",
    ]
    lines += [
        *(f"    t{s} = 0.0" for s in range(SUMS)),
        "    for g in range(groups):",
        *(f"        i{k} = start[g * {width} + {k}]" for k in lanes),
    ]
    lines.append("        for _ in range(depth[g]):")
    for k in lanes:
        lines.append(f"            w = i64_(link[i{k} * 2 + 1])")
        lines.append(f"            i{k} = (w >> {bits}) + (1 if x[w & {(1 << bits) - 1}] > threshold[i{k} * 2] else 0)")
    lines += [*(f"        t{k % SUMS} += threshold[i{k} * 2]" for k in lanes), "    return ((t0 + t1) + t2) + t3"]
    namespace: dict[str, Any] = {"f32": f32, "u32": u32, "i64": i64, "i64_": nb.int64, "__name__": "openinfer.generated"}
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
