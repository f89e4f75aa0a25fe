"""Normalisations. Means and variances are held in float64."""

from __future__ import annotations

import math
from typing import Any

from openinfer.ops._base import NotCompiled, axis_of
from openinfer.ops.meaning._base import Call, Meaning, Meanings


def _batch(call: Call) -> list[Any]:
    """x · factor + shift per channel; inference only."""
    xp, x = call.xp, call.array(0)
    if call.attribute("training_mode", 0) or len(call.node.outputs) > 1 or call.node.version < 7 or not call.attribute("spatial", 1):
        raise NotCompiled("training mode, or statistics per activation")
    scale, bias, mean, variance = (call.array(position).astype("float64") for position in range(1, 5))
    factor = scale / xp.sqrt(variance + call.attribute("epsilon", 1e-5))
    shift = bias - mean * factor
    shape = (-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else (-1,)
    return [x * factor.astype(x.dtype).reshape(shape) + shift.astype(x.dtype).reshape(shape)]


def _lines(call: Call, x: Any, axes: tuple[int, ...], centred: bool) -> tuple[Any, Any, Any]:
    """The normalised lines, their means and inverse deviations, all in float64."""
    xp, wide = call.xp, x.astype("float64")
    count = max(1, math.prod(x.shape[axis] for axis in axes))
    mean = xp.sum(wide, axes, keepdims=True) / count
    rest = wide - mean if centred else wide
    inverse = 1.0 / xp.sqrt(xp.sum(rest * rest, axes, keepdims=True) / count + call.attribute("epsilon", 1e-5))
    return rest * inverse, mean, inverse


def _layer(call: Call) -> list[Any]:
    """LayerNormalization, with its statistics as float32, and RMSNormalization."""
    x, scale, bias = call.array(0), call.array(1), call.optional(2)
    if call.attribute("stash_type", 1) != 1 and len(call.node.outputs) > 1:
        raise NotCompiled(f"stash_type {call.attribute('stash_type')}")
    axis = axis_of(call.attribute("axis", -1), x.ndim)
    lines, mean, inverse = _lines(call, x, tuple(range(axis, x.ndim)), call.node.op == "LayerNormalization")
    y = lines.astype(x.dtype) * scale
    y = y if bias is None else y + bias
    return [y.astype(x.dtype), mean.astype("float32"), inverse.astype("float32")][: len(call.node.outputs)]


def _groups(call: Call) -> list[Any]:
    """InstanceNormalization and GroupNormalization: scale and bias per channel or, in opset 18, per group."""
    x, scale, bias = call.array(0), call.array(1), call.array(2)
    batch, channels = x.shape[:2]
    groups = channels if call.node.op == "InstanceNormalization" else int(call.attribute("num_groups"))
    if channels % groups:
        raise NotCompiled(f"{channels} channels in {groups} groups")
    grouped = x.reshape(batch, groups, channels // groups, *x.shape[2:])
    lines, _, _ = _lines(call, grouped, tuple(range(2, grouped.ndim)), True)
    per_group = call.node.op == "GroupNormalization" and call.node.version < 21
    tail = [1] * (x.ndim - 2)
    shape = (1, groups, 1, *tail) if per_group else (1, groups, channels // groups, *tail)
    return [(lines.astype(x.dtype) * scale.reshape(shape) + bias.reshape(shape)).reshape(x.shape)]


def _local_response(call: Call) -> list[Any]:
    """LRN: each element by the squares of its neighbouring channels."""
    x, size = call.array(0), int(call.attribute("size"))
    squares, channels = call.xp.square(x.astype("float64")), x.shape[1]
    ahead = (size - 1) // 2
    total = call.xp.zeros(x.shape, "float64")
    for shift in range(-ahead, size - ahead):
        low, high = max(0, -shift), min(channels, channels - shift)
        if low < high:
            total[:, low:high] += squares[:, low + shift : high + shift]
    divisor = call.attribute("bias", 1.0) + call.attribute("alpha", 1e-4) / size * total
    return [(x / divisor ** call.attribute("beta", 0.75)).astype(x.dtype)]


def _lp(call: Call) -> list[Any]:
    """LpNormalization; a line of zeros stays one."""
    xp, x, p = call.xp, call.array(0), call.attribute("p", 2)
    axis = axis_of(call.attribute("axis", -1), x.ndim)
    wide = xp.abs(x.astype("float64"))
    norm = xp.sum(wide, axis, keepdims=True) if p == 1 else xp.sqrt(xp.sum(wide * wide, axis, keepdims=True))
    return [(x / xp.where(norm == 0, xp.ones_like(norm), norm)).astype(x.dtype)]


def _mean_variance(call: Call) -> list[Any]:
    xp, x = call.xp, call.array(0)
    axes = tuple(axis_of(axis, x.ndim) for axis in call.attribute("axes", (0, 2, 3)))
    wide, count = x.astype("float64"), max(1, math.prod(x.shape[axis] for axis in axes))
    rest = wide - xp.sum(wide, axes, keepdims=True) / count
    return [(rest / (xp.sqrt(xp.sum(rest * rest, axes, keepdims=True) / count) + 1e-9)).astype(x.dtype)]


MEANINGS: Meanings = {
    ("", "LRN"): Meaning(_local_response),
    ("", "LpNormalization"): Meaning(_lp),
    ("", "MeanVarianceNormalization"): Meaning(_mean_variance),
    ("", "BatchNormalization"): Meaning(_batch),
    ("", "LayerNormalization"): Meaning(_layer),
    ("", "RMSNormalization"): Meaning(_layer),
    ("", "InstanceNormalization"): Meaning(_groups),
    ("", "GroupNormalization"): Meaning(_groups),
}
