"""What every request waited for, as integers on the hot path; quantiles are made when somebody asks."""

from __future__ import annotations

import collections
from typing import Any

import numpy as np

KEPT = 8192  # the latest requests

STAGES = ("queue_ns", "lock_ns", "handoff_ns", "gil_ns", "kernel_ns", "blocking_ns", "total_ns", "batch", "fill_percent")

Waits = tuple[int, int, int, int, int, int, int, int, int]
Kept = Waits | int  # a request that ran at once, inside `submit`: what its call took


class Records:
    """The latest requests' waits, each in ns, and the size of their batch beside the requests it had room for."""

    __slots__ = ("_kept", "_room", "add")

    def __init__(self, on: bool, max_batch: int) -> None:
        self._room = max_batch
        self._kept: collections.deque[Kept] = collections.deque(maxlen=KEPT)
        self.add = self._kept.append if on else _nothing

    def summary(self) -> dict[str, dict[str, float]]:
        """Stage → mean, p50, p99 and largest value over the requests kept; empty before the first one, or where recording is off."""
        alone = (1, 100 // self._room)
        waits = [(0, 0, 0, 0, kept, 0, kept, *alone) if isinstance(kept, int) else kept for kept in [*self._kept]]
        rows: Any = np.array(waits, np.int64).reshape(-1, len(STAGES))
        if not len(rows):
            return {}
        p50, p99 = np.percentile(rows, [50, 99], axis=0)
        return {
            stage: {"mean": float(rows[:, k].mean()), "p50": float(p50[k]), "p99": float(p99[k]), "max": float(rows[:, k].max())}
            for k, stage in enumerate(STAGES)
        }


def _nothing(waits: Kept) -> None:
    """Recording is off."""
