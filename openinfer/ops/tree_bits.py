"""Split trees as bit masks, for many rows at once (QuickScorer: Lucchese et al., SIGIR 2015). Pure NumPy, once per load.

A tree's leaves are numbered from low to high, a bit each. A split that sends a row high clears the bits of the leaves under its low side;
once every split has been tried, in any order, the lowest bit that is left is the row's leaf. A tree of more than 64 leaves has several
words; a split appears once in each word that it clears bits of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops.tree_splits import Splits

WORD = 64


@dataclasses.dataclass(frozen=True)
class Bits:
    """Entries (threshold, slot of the row, the bits that stay) word by word, and [words, 3]: first entry, tree, number of the word's first
    leaf; a last line ends the entries. Words of one tree stand from the last to the first. `leaves`: leaf numbers in bit order.
    """

    thresholds: Array
    slots: Array
    masks: Array
    words: Array
    leaves: Array


def size(trees: Sequence[Splits]) -> tuple[int, int]:
    """About how many entries and words there are, without making them."""
    leaves = [len(tree.slot) + 1 for tree in trees]
    return sum(leaves), sum(-(-count // WORD) for count in leaves)


def pack(trees: Sequence[Splits], dtype: str) -> Bits:
    """The masks of trees without shared splits."""
    thresholds: list[float] = []
    slots: list[int] = []
    masks: list[int] = []
    words: list[tuple[int, int, int]] = []
    leaves: list[int] = []
    for number, tree in enumerate(trees):
        first = len(leaves)
        ranges = _ranges(tree, leaves)
        count = -(-(len(leaves) - first) // WORD)
        entries: list[list[tuple[int, int]]] = [[] for _ in range(count)]
        for split, start, end in ranges:
            for word in range(start // WORD, -(-end // WORD)):
                low, high = max(start - word * WORD, 0), min(end - word * WORD, WORD)
                entries[word].append((split, ~(((1 << high) - 1) ^ ((1 << low) - 1)) & (1 << WORD) - 1))
        for word in reversed(range(count)):
            words.append((len(masks), number, first + word * WORD))
            for split, mask in entries[word]:
                thresholds.append(tree.threshold[split])
                slots.append(tree.slot[split])
                masks.append(mask)
    words.append((len(masks), 0, 0))
    return Bits(
        np.array(thresholds, dtype),
        np.array(slots, np.int32),
        np.array(masks, np.uint64),
        np.array(words, np.int64),
        np.array(leaves, np.int64),
    )


def _ranges(tree: Splits, leaves: list[int]) -> list[tuple[int, int, int]]:
    """Each split with the range of leaves under its low side; appends the tree's leaves in bit order."""
    first = len(leaves)
    ranges: list[tuple[int, int, int]] = []
    # A split is met twice: on the way down, and, as (split, start), once its low side is numbered.
    todo: list[tuple[int, int]] = [(tree.root, -1)]
    while todo:
        child, start = todo.pop()
        if child < 0:
            leaves.append(~child)
        elif start < 0:
            todo += [(child, len(leaves) - first), (tree.low[child], -1)]
        else:
            ranges.append((child, start, len(leaves) - first))
            todo.append((tree.high[child], -1))
    return ranges
