"""Split trees as compact interleaved nodes. Pure NumPy, once per load.

A node is a threshold and a link of the same width: the low bits are the slot of the row that it tests, the high bits its first child. The
children of a node are neighbours: the walk goes to `child + (x[slot] > threshold)`, true for NaN. Two more slots always hold -inf: the one
that a leaf tests, so that it stays where it is whatever its threshold, which holds its value or its number; and the one that a jump tests,
to reach a split that has another parent too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops._base import NotCompiled
from openinfer.ops.tree_splits import Splits

LINKS: dict[str, Any] = {"float32": np.uint32, "float64": np.uint64}


@dataclasses.dataclass(frozen=True)
class Packed:
    """`nodes` of all trees and, last, one lone leaf of value 0; `starts`: the root of each tree, then the lone leaf, a group's worth of
    times.
    """

    nodes: Array
    starts: Array


def slot_bits(slots: int) -> int:
    """Low bits of a link: `slots` of the row, the leaves' and the jumps'."""
    return (slots + 1).bit_length()


def check_size(trees: Sequence[Splits], slots: int, dtype: str) -> None:
    """`NotCompiled` for more nodes than a link or a place can hold."""
    total = sum(4 * len(tree.slot) + 2 for tree in trees)
    limit = 1 << min(8 * LINKS[dtype]().itemsize - slot_bits(slots), 31)
    if total >= limit:
        raise NotCompiled(f"{total} nodes over {slots} features; compact nodes hold fewer than {limit}")


def padded(trees: int, width: int) -> int:
    """The number of trees in whole groups."""
    return -(-trees // width) * width


def pack(trees: Sequence[Splits], leaves: Array, slots: int, width: int) -> Packed:
    """Trees in the order of the file, in whole groups of `width`. `leaves[i]` is what the threshold of leaf i holds; its dtype decides the
    nodes'.
    """
    values = leaves.tolist()
    threshold: list[float] = []
    slot: list[int] = []
    link: list[int] = []
    starts: list[int] = []
    for tree in trees:
        starts.append(len(threshold))
        _lay_out(tree, values, slots, threshold, slot, link)
    lone = len(threshold)
    threshold.append(0.0)
    slot.append(slots)
    link.append(lone)
    kind = LINKS[leaves.dtype.name]
    nodes = np.zeros(len(threshold), [("threshold", leaves.dtype), ("link", kind)])
    nodes["threshold"] = threshold
    nodes["link"] = np.array(slot, kind) | np.array(link, kind) << kind(slot_bits(slots))
    return Packed(nodes, np.array(starts + [lone] * (padded(len(trees), width) - len(trees) + width), np.int32))


def _lay_out(tree: Splits, values: list[float], slots: int, threshold: list[float], slot: list[int], link: list[int]) -> None:
    """Append one tree, breadth first, with neighbouring children."""
    placed: dict[int, int] = {}
    level, used = [tree.root], len(threshold) + 1
    while level:
        below: list[int] = []
        for child in level:
            place = len(threshold)
            if child < 0:
                threshold.append(values[~child])
                slot.append(slots)
                link.append(place)
            elif child in placed:
                threshold.append(0.0)
                slot.append(slots + 1)
                link.append(placed[child])
            else:
                placed[child] = place
                threshold.append(tree.threshold[child])
                slot.append(tree.slot[child])
                link.append(used)
                below += (tree.low[child], tree.high[child])
                used += 2
        level = below
