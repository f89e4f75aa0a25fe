"""Interleaved traversal: `width` trees walk one row together, so that their cache misses overlap.

    for each group of trees: walk FIRST levels, note each tree's place; queue the trees that are not at a leaf yet
    while the queue is not empty: for each group of the queue: walk NEXT levels; keep the trees that are not at a leaf yet

The queue is compacted without branches. A comparison is true for NaN; a node's children are arranged for that.
"""

from __future__ import annotations

from typing import Any

import numba as nb

from openinfer.kernels.cpu.pointers import POINTERS, i32

FIRST, NEXT = 6, 3  # levels; boosted trees are mostly through after the first walk
LINKS = {"float32": "uint32", "float64": "uint64"}


def walk(width: int, bits: int, slots: int, dtype: str) -> Any:
    """walk(row, nodes, starts, places, queue, padded): the leaf's node of every tree into `places`."""
    lanes, mask = range(width), (1 << bits) - 1
    step = [
        line
        for k in lanes
        for line in (f"w = i64_(link[i{k} * 2 + 1])", f"i{k} = (w >> {bits}) + (0 if x[w & {mask}] <= threshold[i{k} * 2] else 1)")
    ]

    def note(indent: str, tree: str) -> list[str]:
        """Store each place; queue the trees that are not at a leaf."""
        lines = [f"{indent}place[{tree.format(k)}] = i{k}" for k in lanes]
        for k in lanes:
            lines += [f"{indent}waiting[n] = {tree.format(k)}", f"{indent}n += 1 if (link[i{k} * 2 + 1] & {mask}) != {slots} else 0"]
        return lines

    pad = [f"for k in range({width}):", "    waiting[n + k] = padded"]
    lines = [
        "def walk(row, nodes, starts, places, queue, padded):",
        "    x, threshold, link, start, place, waiting = real(row), real(nodes), whole(nodes), i32(starts), i32(places), i32(queue)",
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
    ]
    namespace: dict[str, Any] = {
        "real": POINTERS[dtype],
        "whole": POINTERS[LINKS[dtype]],
        "i32": i32,
        "i64_": nb.int64,
        "__name__": "openinfer.generated",
    }
    exec(compile("\n".join(lines), "<openinfer trees>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["walk"])
