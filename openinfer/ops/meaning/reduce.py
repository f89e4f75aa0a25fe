"""Reductions, running sums, orders and Softmax. Sums of floats are held in float64."""

from __future__ import annotations

import math
from typing import Any

from openinfer.ops._base import NotCompiled, axis_of
from openinfer.ops.meaning._base import Call, Meaning, Meanings, accumulator
from openinfer.ops.reduce import EMPTY, GLOBAL, OPERATIONS


def _axes(call: Call, rank: int) -> tuple[int, ...]:
    if call.node.op in GLOBAL:
        return tuple(range(2, rank))
    given = call.attribute("axes") if call.node.version < OPERATIONS[call.node.op] else call.integers(1)
    if not given and call.node.version >= OPERATIONS[call.node.op] and call.attribute("noop_with_empty_axes", 0):
        return ()
    return tuple(sorted({axis_of(axis, rank) for axis in given})) if given else tuple(range(rank))


def _reduce(call: Call) -> list[Any]:
    xp, x = call.xp, call.array(0)
    operation, axes = GLOBAL.get(call.node.op, call.node.op), _axes(call, x.ndim)
    keep = bool(call.attribute("keepdims", 1)) or call.node.op in GLOBAL
    shape = tuple(1 if axis in axes else d for axis, d in enumerate(x.shape) if keep or axis not in axes)
    if 0 in x.shape and math.prod(x.shape[axis] for axis in axes) == 0:
        number = EMPTY.get(operation, 0.0)
        if x.dtype.kind != "f" and not math.isfinite(number):
            raise NotCompiled("the extreme of no integers")
        y = xp.empty(shape, x.dtype)
        y[...] = number
        return [y]
    # A trailing axis of one element stands for no axes at all.
    lines, over = (x, axes) if axes else (x.reshape(*x.shape, 1), (x.ndim,))
    return [xp.asarray(_reduced(xp, operation, lines, over)).astype(x.dtype).reshape(shape)]


def _reduced(xp: Any, operation: str, x: Any, axes: tuple[int, ...]) -> Any:
    wide = accumulator(x.dtype)
    match operation:
        case "ReduceSum":
            return xp.sum(x, axes, dtype=wide)
        case "ReduceMean":
            return xp.sum(x, axes, dtype="float64") / math.prod(x.shape[axis] for axis in axes)
        case "ReduceProd":
            return xp.prod(x, axes, dtype=wide)
        case "ReduceMax":
            return xp.max(x, axes)
        case "ReduceMin":
            return xp.min(x, axes)
        case "ReduceL1":
            return xp.sum(xp.abs(x), axes, dtype=wide)
        case "ReduceSumSquare":
            return xp.sum(xp.square(x.astype(wide)), axes, dtype=wide)
        case "ReduceL2":
            return xp.sqrt(xp.sum(xp.square(x.astype("float64")), axes))
        case "ReduceLogSum":
            return xp.log(xp.sum(x, axes, dtype="float64"))
        case "ReduceLogSumExp":
            top = xp.max(x, axes, keepdims=True).astype("float64")
            # Infinite: the difference would be NaN.
            level = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
            return xp.log(xp.sum(xp.exp(x.astype("float64") - level), axes)) + level.reshape(xp.max(x, axes).shape)
    raise NotCompiled(operation)


def _arg(call: Call) -> list[Any]:
    xp, x = call.xp, call.array(0)
    axis = axis_of(call.attribute("axis", 0), x.ndim)
    if not x.shape[axis]:
        raise NotCompiled(f"the extreme of axis {axis} of shape {x.shape}")
    find = xp.argmax if call.node.op == "ArgMax" else xp.argmin
    if call.attribute("select_last_index", 0):
        at = x.shape[axis] - 1 - xp.asarray(find(xp.flip(x, axis), axis))
    else:
        at = xp.asarray(find(x, axis))
    return [xp.expand_dims(at, axis).astype("int64") if call.attribute("keepdims", 1) else at.astype("int64")]


def _running(call: Call) -> list[Any]:
    xp, x = call.xp, call.array(0)
    axis = axis_of((call.integers(1) or [0])[0], x.ndim)
    reverse, exclusive = call.attribute("reverse", 0), call.attribute("exclusive", 0)
    product = call.node.op == "CumProd"
    line = xp.flip(x, axis) if reverse else x
    if exclusive:
        ahead: list[slice] = [slice(None)] * x.ndim
        ahead[axis] = slice(0, max(0, x.shape[axis] - 1))
        shape = tuple(min(1, d) if a == axis else d for a, d in enumerate(x.shape))
        line = xp.concatenate([xp.ones(shape, x.dtype) if product else xp.zeros(shape, x.dtype), line[tuple(ahead)]], axis)
    line = (xp.cumprod if product else xp.cumsum)(line, axis, dtype=accumulator(x.dtype)).astype(x.dtype)
    return [xp.flip(line, axis) if reverse else line]


def _top(call: Call) -> list[Any]:
    """Equal values in the order of their places: a stable order of the line from its end, read backwards."""
    xp, x = call.xp, call.array(0)
    k = int(call.attribute("k")) if call.node.version < 10 else (call.integers(1) or [0])[0]
    axis = axis_of(call.attribute("axis", -1), x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise NotCompiled(f"{k} of {x.shape} along axis {axis}")
    if call.attribute("largest", 1):
        places = xp.flip(x.shape[axis] - 1 - xp.argsort(xp.flip(x, axis), axis, kind="stable"), axis)
    else:
        places = xp.argsort(x, axis, kind="stable")
    first: list[slice] = [slice(None)] * x.ndim
    first[axis] = slice(0, k)
    places = places[tuple(first)].astype("int64")
    return [xp.take_along_axis(x, places, axis), places]


def _softmax(call: Call) -> list[Any]:
    """Before opset 13 the input is a matrix that begins its rows at `axis`."""
    xp, given = call.xp, call.array(0)
    if given.dtype.kind != "f":
        raise NotCompiled(f"dtype {given.dtype}")
    flatten = call.node.version < 13
    axis = call.attribute("axis", 1 if flatten else -1)
    axis = given.ndim if flatten and axis == given.ndim else axis_of(axis, given.ndim)
    x = given.reshape(math.prod(given.shape[:axis]), math.prod(given.shape[axis:])) if flatten else given
    axis = 1 if flatten else axis
    if 0 in x.shape:
        return [given]
    if call.node.op == "Hardmax":
        best = xp.expand_dims(xp.argmax(x, axis), axis)
        places = xp.arange(x.shape[axis]).reshape(-1, *[1] * (x.ndim - axis - 1))
        return [(places == best).astype(x.dtype).reshape(given.shape)]
    shifted = x - xp.max(x, axis, keepdims=True)
    powers = xp.exp(shifted)
    total = xp.sum(powers, axis, keepdims=True, dtype="float64")
    y = shifted - xp.log(total).astype(x.dtype) if call.node.op == "LogSoftmax" else powers / total.astype(x.dtype)
    return [y.reshape(given.shape)]


MEANINGS: Meanings = {
    **{("", name): Meaning(_reduce, (1,)) for name in (*OPERATIONS, *GLOBAL)},
    **{("", name): Meaning(_arg) for name in ("ArgMax", "ArgMin")},
    **{("", name): Meaning(_running, (1,)) for name in ("CumSum", "CumProd")},
    **{("", name): Meaning(_softmax) for name in ("Softmax", "LogSoftmax", "Hardmax")},
    ("", "TopK"): Meaning(_top, (1,)),
}
