"""A tree of any of ONNX's comparisons as one of a single kind of split, `high if x[feature] > threshold else low`, NaN going high.

    x <= t    low: true, high: false                   x < t    the same with the next number below t
    x >= t, x > t    the same with the branches exchanged
    x == t    x > t ? false : (x > below(t) ? true : false)          a set: a search over its sorted members, ended by such a pair
    NaN goes low    the split on -x: (-x > -above(t)) ? low : high   -x is a slot of its own, `feature + features`

A branch that cannot go two ways (x < -inf, x <= inf, a threshold that is NaN) is passed over.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from openinfer.ops.tree_ensemble import EQ, GT, GTE, LT, MEMBER, NEQ, Ensemble


@dataclasses.dataclass
class Splits:
    """One tree: parallel lists of splits, the root first. A child is a split's position or `~leaf`. `shared`: some split has two
    parents.
    """

    slot: list[int] = dataclasses.field(default_factory=list)
    threshold: list[float] = dataclasses.field(default_factory=list)
    low: list[int] = dataclasses.field(default_factory=list)
    high: list[int] = dataclasses.field(default_factory=list)
    root: int = 0
    shared: bool = False


def plant(ensemble: Ensemble, features: int, dtype: str) -> list[Splits]:
    """Every tree as splits over the slots of a row with `features` features; thresholds are exact in `dtype`."""
    # The number after the largest one is infinity, which NumPy calls an overflow.
    with np.errstate(over="ignore"):
        grower = _Grower(ensemble, features, np.dtype(dtype).type)
        return [grower.tree(root) for root in ensemble.roots.tolist()]


class _Grower:
    def __init__(self, ensemble: Ensemble, features: int, kind: Any) -> None:
        self._features, self._kind = features, kind
        self._mode: list[int] = ensemble.mode.tolist()
        self._feature: list[int] = ensemble.feature.tolist()
        self._true: list[int] = ensemble.true.tolist()
        self._false: list[int] = ensemble.false.tolist()
        self._missing: list[bool] = ensemble.missing_true.tolist()
        self._sets = ensemble.sets
        self._splits = Splits()
        self._places: dict[int, int] = {}
        self._todo: list[tuple[int, int]] = []
        thresholds = ensemble.threshold.astype(kind)
        strict = (ensemble.mode == LT) | (ensemble.mode == GTE)
        # What no number is below is marked as NaN: such a comparison is never true.
        below = np.where(thresholds == -np.inf, np.nan, np.nextafter(thresholds, kind(-np.inf)))
        self._never = np.isnan(thresholds).tolist()
        self._limit = np.where(strict, below, thresholds).tolist()
        self._above = np.nextafter(np.where(strict, below, thresholds).astype(kind), kind(np.inf)).tolist()

    def tree(self, root: int) -> Splits:
        """Splits of the tree under `root`."""
        splits = Splits()
        self._splits, self._places, self._todo = splits, {}, []
        splits.root = self._place(root)
        while self._todo:
            self._expand(*self._todo.pop())
        return splits

    def _new(self) -> int:
        for column in (self._splits.slot, self._splits.low, self._splits.high):
            column.append(0)
        self._splits.threshold.append(0.0)
        return len(self._splits.slot) - 1

    def _place(self, branch: int) -> int:
        """The position that stands for a branch, or `~leaf`."""
        while branch >= 0 and (only := self._only_way(branch)) is not None:
            branch = only
        if branch < 0:
            return branch
        place = self._places.get(branch)
        if place is None:
            place = self._places[branch] = self._new()
            self._todo.append((branch, place))
        return place

    def _numbers_way(self, branch: int) -> int | None:
        """Where every number goes, if that is one way."""
        mode, limit = self._mode[branch], self._limit[branch]
        true, false = self._true[branch], self._false[branch]
        if mode == MEMBER:
            return None if len(self._sets[branch]) else false
        if self._never[branch]:
            return true if mode == NEQ else false
        if mode in (EQ, NEQ):
            return None
        if limit != limit or limit == np.inf:
            below = limit == np.inf
            return true if below == (mode not in (GT, GTE)) else false
        return None

    def _only_way(self, branch: int) -> int | None:
        """Where numbers and NaN go, if that is one way."""
        way = self._numbers_way(branch)
        nan = self._true[branch] if self._missing[branch] else self._false[branch]
        if self._true[branch] == self._false[branch]:
            return nan
        return way if way == nan else None

    def _expand(self, branch: int, place: int) -> None:
        mode, feature = self._mode[branch], self._feature[branch]
        way = self._numbers_way(branch)
        true, false = self._place(self._true[branch]), self._place(self._false[branch])
        nan = true if self._missing[branch] else false
        if way is not None:
            self._put(place, feature, np.inf, false if nan == true else true, nan)
        elif mode in (EQ, NEQ, MEMBER):
            members = self._sets[branch].astype(self._kind).tolist() if mode == MEMBER else [self._limit[branch]]
            inside, outside = (false, true) if mode == NEQ else (true, false)
            self._search(place, feature, members, inside, outside, nan)
        else:
            low, high = (false, true) if mode in (GT, GTE) else (true, false)
            self._put(place, feature, self._limit[branch], low, high, nan != high, self._above[branch])

    def _put(self, place: int, feature: int, threshold: float, low: int, high: int, nan_low: bool = False, above: float = 0.0) -> None:
        if nan_low:
            feature, threshold, low, high = feature + self._features, -above, high, low
        splits = self._splits
        splits.slot[place], splits.threshold[place], splits.low[place], splits.high[place] = feature, threshold, low, high

    def _search(self, place: int, feature: int, members: list[float], inside: int, outside: int, nan: int) -> None:
        """Splits that tell whether a value is one of `members` (sorted)."""
        kind, splits = self._kind, self._splits
        todo = [(place, 0, len(members))]
        splits.shared = splits.shared or inside >= 0 or outside >= 0
        while todo:
            at, first, end = todo.pop()
            if end - first > 1:
                middle = (first + end) // 2
                low, high = self._new(), self._new()
                self._put(at, feature, members[middle - 1], low, high)
                todo += [(low, first, middle), (high, middle, end)]
                continue
            value = members[first]
            above, below = float(np.nextafter(kind(value), kind(np.inf))), float(np.nextafter(kind(value), kind(-np.inf)))
            if value == -np.inf:
                self._put(at, feature, value, inside, outside, nan != outside, above)
            elif value == np.inf:
                self._put(at, feature, below, outside, inside, nan != inside, value)
            else:
                pair = self._new()
                self._put(at, feature, value, pair, outside, nan != outside, above)
                self._put(pair, feature, below, outside, inside)
