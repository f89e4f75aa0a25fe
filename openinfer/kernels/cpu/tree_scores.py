"""From a row's leaves to its scores: weights by target, base values, and ONNX's post-transforms, all in float64."""

from __future__ import annotations

import functools
import math
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu.pointers import POINTERS, f64, i32, i64
from openinfer.kernels.cpu.vector_math import exp64


@functools.cache
def scorer(*, aggregate: str, transform: str, targets: int, binary: int, classes: int, dtype: str) -> Any:
    """score(leaves, trees, base, offsets, weight_targets, weights, sums, class_labels, labels, y, row).

    `leaves` are the leaf numbers of one row's trees, in the order of the file. `binary` is the only class that has weights, or -1; its
    score s makes two: 1 - s and s, or -s and s under LOGISTIC, SOFTMAX and SOFTMAX_ZERO. `classes` is the number of scores of a
    classifier, 0 for a regressor. An untouched target of MIN or MAX keeps the largest or smallest number of the output's type.
    """
    transformed = _transform(transform)
    write, cast = POINTERS[dtype], {"float32": nb.float32, "float64": nb.float64}[dtype]
    start = {"MIN": float(np.finfo(dtype).max), "MAX": float(np.finfo(dtype).min)}.get(aggregate, 0.0)
    lowest, highest, averaged = aggregate == "MIN", aggregate == "MAX", aggregate == "AVERAGE"
    flipped = transform not in ("NONE", "PROBIT")
    outputs = classes if classes else targets

    @nb.njit(error_model="numpy")
    def score(
        leaves: int,
        trees: int,
        base: int,
        offsets: int,
        weight_targets: int,
        weights: int,
        sums: int,
        class_labels: int,
        labels: int,
        y: int,
        row: int,
    ) -> None:
        leaf, offset, target, weight, total, given = i32(leaves), i64(offsets), i64(weight_targets), f64(weights), f64(sums), f64(base)
        out = write(y)
        for t in range(targets):
            total[t] = start
        for tree in range(trees):
            number = leaf[tree]
            for k in range(offset[number], offset[number + 1]):
                t, w = target[k], weight[k]
                if lowest:
                    total[t] = min(total[t], w)
                elif highest:
                    total[t] = max(total[t], w)
                else:
                    total[t] += w
        for t in range(targets):
            if averaged:
                total[t] /= trees
            total[t] += given[t]
        if binary >= 0:
            only = total[binary]
            total[0] = -only if flipped else 1.0 - only
            total[1] = only
        transformed(sums, outputs)
        best = 0
        for t in range(outputs):
            value = cast(total[t])
            out[row * outputs + t] = value
            if classes > 0 and (
                value > out[row * outputs + best] or (value != value and out[row * outputs + best] == out[row * outputs + best])
            ):
                best = t
        if classes > 0:
            i64(labels)[row] = i64(class_labels)[best]

    return score


def _transform(name: str) -> Any:
    """f(values, count), in place."""

    @nb.njit(error_model="numpy")
    def none(values: int, count: int) -> None:
        return

    @nb.njit(error_model="numpy")
    def logistic(values: int, count: int) -> None:
        v = f64(values)
        for i in range(count):
            small = exp64(-abs(v[i]))
            v[i] = small / (1.0 + small) if v[i] < 0.0 else 1.0 / (1.0 + small)

    @nb.njit(error_model="numpy")
    def softmax(values: int, count: int) -> None:
        v = f64(values)
        top, total = v[0], 0.0
        for i in range(1, count):
            top = v[i] if v[i] > top or v[i] != v[i] else top
        for i in range(count):
            v[i] = exp64(v[i] - top)
            total += v[i]
        for i in range(count):
            v[i] /= total

    @nb.njit(error_model="numpy")
    def softmax_zero(values: int, count: int) -> None:
        """Softmax in which a score of 0 (within 1e-7) stays 0."""
        v = f64(values)
        top, total = v[0], 0.0
        for i in range(1, count):
            top = v[i] if v[i] > top or v[i] != v[i] else top
        for i in range(count):
            v[i] = v[i] * exp64(-top) if abs(v[i]) <= 1e-7 else exp64(v[i] - top)
            total += v[i]
        for i in range(count):
            v[i] = v[i] / total if total != 0.0 else 0.5

    @nb.njit(error_model="numpy")
    def probit(values: int, count: int) -> None:
        """√2 · erf⁻¹(2p - 1) by Winitzki's formula with a = 0.147, as onnx.reference and ONNX Runtime compute it."""
        v = f64(values)
        for i in range(count):
            z = 2.0 * v[i] - 1.0
            rest = (1.0 - z) * (1.0 + z)
            if rest == 0.0:
                v[i] = 0.0
                continue
            log = math.log(rest) if rest > 0.0 else np.nan
            half = 2.0 / (math.pi * 0.147) + 0.5 * log
            root = 1.41421356 * math.sqrt(math.sqrt(half * half - log / 0.147) - half)
            v[i] = -root if z < 0.0 else root

    return {"NONE": none, "LOGISTIC": logistic, "SOFTMAX": softmax, "SOFTMAX_ZERO": softmax_zero, "PROBIT": probit}[name]
