"""Where a series changes its level: optimal partitioning with pruning (PELT: Killick, Fearnhead and Eckley, 2012) of its logarithms."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

BLOCKS = 60
LEAST = 3  # blocks between two changes
PENALTY = 4.0  # times the noise's variance times log n, for a level more
SMALL = 0.05  # a change of level below this share is none that matters
STEADY_SHARE = 0.5  # of the run after its last change


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`changes` are (block, level before, level after) that matter; `from_block` where the last level begins, of `blocks`."""

    steady: bool
    from_block: int
    blocks: int
    changes: tuple[tuple[int, float, float], ...]


def medians(values: Sequence[float], blocks: int = BLOCKS) -> list[float]:
    """The median of each of `blocks` stretches of the run, fewer where there are fewer values."""
    return [float(np.median(part)) for part in np.array_split(np.asarray(values, float), min(blocks, len(values))) if len(part)]


def verdict(levels: Sequence[float]) -> Verdict:
    """Whether at least half of the run lies after the last change of level. Levels are positive: medians of consecutive blocks."""
    logs = np.log(np.maximum(np.asarray(levels, float), 1e-9))
    edges = [0, *change_points(logs), len(logs)]
    means = [float(np.median(logs[a:b])) for a, b in itertools.pairwise(edges)]
    changes = tuple(
        (edge, math.exp(a), math.exp(b))
        for edge, a, b in zip(edges[1:-1], means, means[1:], strict=False)
        if abs(b - a) > math.log1p(SMALL)
    )
    last = changes[-1][0] if changes else 0
    return Verdict(len(logs) - last >= STEADY_SHARE * len(logs), last, len(logs), changes)


def change_points(values: Sequence[float] | np.ndarray) -> list[int]:
    """Indices at which the mean changes, by the partition of least squared error with a price per segment."""
    y = np.asarray(values, float)
    n = len(y)
    if n < 2 * LEAST:
        return []
    # The noise from differences: a change of level touches one of them.
    sigma = float(np.median(np.abs(np.diff(y)))) / (0.6745 * math.sqrt(2))
    price = PENALTY * max(sigma, 1e-3) ** 2 * math.log(n)
    sums, squares = np.concatenate([[0], np.cumsum(y)]), np.concatenate([[0], np.cumsum(y * y)])
    best = np.full(n + 1, math.inf)
    best[0], before = -price, [0] * (n + 1)
    starts = [0]
    for end in range(LEAST, n + 1):
        costs = [best[s] + squares[end] - squares[s] - (sums[end] - sums[s]) ** 2 / (end - s) + price for s in starts]
        chosen = int(np.argmin(costs))
        best[end], before[end] = costs[chosen], starts[chosen]
        starts = [s for s, cost in zip(starts, costs, strict=True) if cost - price <= best[end]]
        if end - LEAST + 1 >= LEAST:
            starts.append(end - LEAST + 1)
    found, at = [], n
    while before[at] > 0:
        at = before[at]
        found.append(at)
    return found[::-1]
