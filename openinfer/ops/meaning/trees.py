"""Tree ensembles, level by level: all rows stand in all trees at once, and each level is one comparison of arrays."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops import trees
from openinfer.ops._base import required
from openinfer.ops.meaning._base import Call, Meaning, Meanings, values
from openinfer.ops.tree_ensemble import EQ, GT, GTE, LEQ, LT, MEMBER, NEQ, Ensemble, read

ELEMENTS = 1 << 24  # of the largest intermediate array


def depth(ensemble: Ensemble) -> int:
    """The most branches between a root and a leaf."""
    level, count = ensemble.roots[ensemble.roots >= 0], 0
    while len(level):
        below = np.concatenate([ensemble.true[level], ensemble.false[level]])
        level, count = below[below >= 0], count + 1
    return count


def leaf_table(ensemble: Ensemble, targets: int, aggregate: str, start: float) -> Array:
    """[leaves, targets] float64: what a leaf adds to each target, or for MIN and MAX its extreme there."""
    leaves = len(ensemble.offsets) - 1
    table = np.full((leaves, targets), start)
    owners = np.repeat(np.arange(leaves), np.diff(ensemble.offsets))
    join: Any = {"MIN": np.minimum, "MAX": np.maximum}.get(aggregate, np.add)
    join.at(table, (owners, ensemble.targets), ensemble.weights)
    return table


def _members(ensemble: Ensemble, dtype: Any) -> Array:
    """[branches, largest set]: the members that a branch tests, padded with NaN, which nothing equals."""
    table = np.full((len(ensemble.mode), max((len(s) for s in ensemble.sets.values()), default=0)), np.nan, dtype)
    for branch, members in ensemble.sets.items():
        table[branch, : len(members)] = members
    return table


def _ensemble(call: Call) -> list[Any]:
    xp, ensemble = call.xp, read(call.node)
    form = trees.form_of(call.node, required(values(call), 0), ensemble)
    x = call.array(0).astype(form.dtype)
    start = {"MIN": float(np.finfo(form.out).max), "MAX": float(np.finfo(form.out).min)}.get(form.aggregate, 0.0)
    table = call.keep("leaves", lambda: leaf_table(ensemble, form.targets, form.aggregate, start))
    base = call.keep("base", lambda: np.array(form.base))
    at_once = max(1, ELEMENTS // (ensemble.count * max(1, form.targets)))
    totals = []
    for first in range(0, x.shape[0], at_once):
        leaves = _leaves(call, ensemble, x[first : first + at_once])
        weights = xp.take(table, leaves, 0)
        join = {"MIN": xp.min, "MAX": xp.max}.get(form.aggregate, xp.sum)
        totals.append(join(weights, 1))
    total = xp.concatenate(totals, 0) if totals else xp.zeros((0, form.targets), "float64")
    total = (total / ensemble.count if form.aggregate == "AVERAGE" else total) + base
    if form.binary >= 0:
        only = total[:, form.binary]
        total = xp.stack([-only if form.transform not in ("NONE", "PROBIT") else 1.0 - only, only], 1)
    scores = _transformed(xp, form.transform, total).astype(form.out)
    if not form.classes:
        return [scores]
    labels = call.keep("labels", lambda: np.array(form.labels, np.int64))
    return [xp.take(labels, xp.argmax(scores, 1), 0), scores]


def _leaves(call: Call, ensemble: Ensemble, x: Any) -> Any:
    """[rows, trees]: the leaf that each row reaches in each tree. NaN goes where the branch says."""
    xp = call.xp
    columns = {"feature": ensemble.feature, "true": ensemble.true, "false": ensemble.false}
    feature, true, false = (call.keep(name, functools.partial(array.astype, np.int64)) for name, array in columns.items())
    missing = call.keep("missing", lambda: ensemble.missing_true.astype(bool))
    mode = call.keep("mode", lambda: ensemble.mode)
    threshold = call.keep(("threshold", x.dtype.name), lambda: ensemble.threshold.astype(x.dtype.name))
    roots = call.keep("roots", lambda: ensemble.roots.astype(np.int64))
    modes = [int(found) for found in np.unique(ensemble.mode)]
    place = xp.broadcast_to(roots, (x.shape[0], ensemble.count))
    for _ in range(depth(ensemble)):
        branch = xp.maximum(place, 0)
        value, limit = xp.take_along_axis(x, xp.take(feature, branch), 1), xp.take(threshold, branch)
        kind = xp.take(mode, branch) if len(modes) > 1 else None
        goes = None
        for code in modes:
            if code == MEMBER:
                members = call.keep(("members", x.dtype.name), lambda: _members(ensemble, x.dtype.name))
                met = xp.any(xp.take(members, branch, 0) == xp.expand_dims(value, 2), 2)
            else:
                met = _compared(code, value, limit)
            goes = met if goes is None else xp.where(kind == code, met, goes)
        goes = xp.where(value != value, xp.take(missing, branch), goes)
        place = xp.where(place < 0, place, xp.where(goes, xp.take(true, branch), xp.take(false, branch)))
    return -1 - place


def _compared(code: int, value: Any, limit: Any) -> Any:
    match code:
        case _ if code == LEQ:
            return value <= limit
        case _ if code == LT:
            return value < limit
        case _ if code == GTE:
            return value >= limit
        case _ if code == GT:
            return value > limit
        case _ if code == EQ:
            return value == limit
    assert code == NEQ
    return value != limit


def _transformed(xp: Any, name: str, v: Any) -> Any:
    """ONNX's post-transforms in float64 (`kernels/cpu/tree_scores.py`)."""
    if name == "LOGISTIC":
        small = xp.exp(-xp.abs(v))
        return xp.where(v < 0, small / (1.0 + small), 1.0 / (1.0 + small))
    if name in ("SOFTMAX", "SOFTMAX_ZERO"):
        top = xp.max(v, 1, keepdims=True)
        powers = xp.exp(v - top)
        if name == "SOFTMAX":
            return powers / xp.sum(powers, 1, keepdims=True)
        powers = xp.where(xp.abs(v) <= 1e-7, v * xp.exp(-top), powers)
        total = xp.sum(powers, 1, keepdims=True)
        return xp.where(total != 0, powers / xp.where(total != 0, total, xp.ones_like(total)), 0.5)
    if name == "PROBIT":
        z = 2.0 * v - 1.0
        rest = (1.0 - z) * (1.0 + z)
        log = xp.log(rest)
        half = 2.0 / (math.pi * 0.147) + 0.5 * log
        root = 1.41421356 * xp.sqrt(xp.sqrt(half * half - log / 0.147) - half)
        return xp.where(rest == 0, xp.zeros_like(v), xp.where(z < 0, -root, root))
    return v


def _names() -> Sequence[str]:
    return [name for _, name in trees.OPERATORS]


MEANINGS: Meanings = {("ai.onnx.ml", name): Meaning(_ensemble) for name in _names()}
