"""Resize and Upsample, one axis after the other: each output position of an axis is a weighted sum of a few input positions.

Positions and weights follow from shapes and constants, so they are computed here, in float64; `resize_axis` and `take_axis` apply them.
Axes that shrink go first, then those that grow, the last one first: every step handles as little as it can.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import ITEM_BYTES, Array, Node, TensorType
from openinfer.ops._base import (
    Alias,
    NotCompiled,
    Operator,
    Packed,
    Scratch,
    Step,
    Target,
    Value,
    axis_of,
    float_only,
    known,
    optional,
    required,
)

CALL_NS = 10.0
TAP_NS = 0.3
OUTSIDE = -1  # the index of a position that takes the extrapolation value


@dataclasses.dataclass(frozen=True)
class Settings:
    """How coordinates and weights are made, whatever the operator's version."""

    mode: str
    transformation: str
    nearest: str
    cubic_a: float
    antialias: bool
    exclude_outside: bool
    extrapolation: float


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis: sizes, scale, and the part of the input that `tf_crop_and_resize` looks at."""

    number: int
    before: int
    after: int
    scale: float
    roi: tuple[float, float]

    @property
    def idle(self) -> bool:
        """Whether the axis stays as it is."""
        return self.before == self.after and math.isclose(self.scale, 1.0) and self.roi == (0.0, 1.0)


def settings(node: Node) -> Settings:
    """The node's attributes. Before version 11, coordinates are asymmetric and nearest rounds towards the output's image."""
    mode = node.attribute("mode", "nearest")
    mode = {"bilinear": "linear"}.get(mode, mode)
    if mode not in ("nearest", "linear", "cubic"):
        raise NotCompiled(f"mode {mode!r}")
    old = node.op == "Upsample" or node.version < 11
    found = Settings(
        mode,
        "asymmetric" if old else node.attribute("coordinate_transformation_mode", "half_pixel"),
        "outwards" if old else node.attribute("nearest_mode", "round_prefer_floor"),
        float(node.attribute("cubic_coeff_a", -0.75)),
        bool(node.attribute("antialias", 0)),
        bool(node.attribute("exclude_outside", 0)),
        float(node.attribute("extrapolation_value", 0.0)),
    )
    if mode == "nearest" and (found.antialias or found.exclude_outside):
        raise NotCompiled("antialias or exclude_outside with mode 'nearest'")
    return found


def axes(node: Node, inputs: Sequence[Value | None]) -> list[Axis]:
    """Every axis of the input, in order; `NotCompiled` where scales, sizes or the region are not known before the call."""
    x = required(inputs, 0)
    rank = len(x.shape)
    chosen = [axis_of(axis, rank) for axis in node.attribute("axes", tuple(range(rank)))]
    old = node.op == "Upsample" or node.version < 11
    roi = None if old or node.attribute("coordinate_transformation_mode") != "tf_crop_and_resize" else _numbers(optional(inputs, 1), "roi")
    if node.op == "Upsample" and node.version < 9:
        scales: list[float] | None = [float(s) for s in node.attribute("scales")]
    else:
        scales = _numbers(optional(inputs, 1 if old else 2), "the scales")
    sizes = None if old else _numbers(optional(inputs, 3), "the sizes")
    if (scales is None) == (sizes is None):
        raise NotCompiled("neither scales nor sizes, or both")
    found = [Axis(axis, d, d, 1.0, (0.0, 1.0)) for axis, d in enumerate(x.shape)]
    given = scales if sizes is None else [size / x.shape[axis] if x.shape[axis] else 1.0 for size, axis in zip(sizes, chosen, strict=False)]
    assert given is not None
    if len(given) != len(chosen) or (roi is not None and len(roi) != 2 * len(chosen)) or any(scale <= 0 for scale in given):
        raise NotCompiled(f"{len(given)} scales or sizes for {len(chosen)} axes, or one that is not positive")
    policy = node.attribute("keep_aspect_ratio_policy", "stretch")
    if sizes is not None and policy != "stretch":
        common = min(given) if policy == "not_larger" else max(given)
        given = [common] * len(chosen)
        sizes = [math.floor(common * x.shape[axis] + 0.5) for axis in chosen]
    for position, axis in enumerate(chosen):
        before, scale = x.shape[axis], given[position]
        # By the operator's text a region of interest shrinks what the scale applies to; a size is a size.
        span = (roi[position], roi[len(chosen) + position]) if roi is not None else (0.0, 1.0)
        after = int(sizes[position]) if sizes is not None else math.floor(before * (span[1] - span[0] if _shrinks(node) else 1.0) * scale)
        found[axis] = Axis(axis, before, after, scale, span)
    if any(axis.after < 1 for axis in found):
        raise NotCompiled("an empty output")
    return found


def _shrinks(node: Node) -> bool:
    return node.attribute("coordinate_transformation_mode") == "tf_crop_and_resize" and node.version >= 11


def _numbers(value: Value | None, what: str) -> list[float] | None:
    if value is None or not value.type.count:
        return None
    return [float(number) for number in np.asarray(known(value, what)).reshape(-1)]


def coordinates(axis: Axis, how: Settings) -> Array:
    """The input coordinate of every output position, by the formulas of the operator's text."""
    x = np.arange(axis.after, dtype=np.float64)
    width, target = axis.before, axis.scale * axis.before
    if how.transformation == "half_pixel":
        return (x + 0.5) / axis.scale - 0.5
    if how.transformation == "half_pixel_symmetric":
        return width / 2 * (1 - axis.after / target) + (x + 0.5) / axis.scale - 0.5
    if how.transformation == "pytorch_half_pixel":
        return (x + 0.5) / axis.scale - 0.5 if axis.after > 1 else np.zeros(1)
    if how.transformation == "align_corners":
        return x * (width - 1) / (target - 1) if target != 1 else np.zeros(axis.after)
    if how.transformation == "asymmetric":
        return x / axis.scale
    if how.transformation == "tf_half_pixel_for_nn":
        return (x + 0.5) / axis.scale
    if how.transformation == "tf_crop_and_resize":
        start, end = axis.roi
        if axis.after == 1:
            return np.full(1, 0.5 * (start + end) * (width - 1))
        return start * (width - 1) + x * (end - start) * (width - 1) / (axis.after - 1)
    raise NotCompiled(f"coordinate_transformation_mode {how.transformation!r}")


def table(axis: Axis, how: Settings) -> tuple[Array, Array]:
    """(indices, weights), both [after, taps]; an index is `OUTSIDE` where the extrapolation value applies."""
    at = coordinates(axis, how)
    if how.mode == "nearest":
        indices, weights = _round(at, how.nearest, axis.scale)[:, None], np.ones((axis.after, 1))
    else:
        reach = 1 if how.mode == "linear" else 2
        squeeze = min(1.0, axis.scale) if how.antialias else 1.0
        first = math.floor(-reach / squeeze) + 1
        indices = np.floor(at)[:, None] + np.arange(first, 2 - first)
        distance = np.abs(indices - at[:, None]) * squeeze
        weights = np.maximum(0.0, 1.0 - distance) if how.mode == "linear" else _cubic(distance, how.cubic_a)
        if how.exclude_outside:
            weights = np.where((indices < 0) | (indices >= axis.before), 0.0, weights)
        if how.exclude_outside or squeeze < 1.0:
            total = weights.sum(1, keepdims=True)
            weights = weights / np.where(total == 0, 1.0, total)
    indices = np.clip(indices, 0, axis.before - 1).astype(np.int64)
    # A tap without weight must not turn an infinity into NaN: it takes an even share of the heaviest tap's weight, and its index.
    heaviest = weights.argmax(1)[:, None]
    none = weights == 0
    share = np.take_along_axis(weights, heaviest, 1) / (1 + none.sum(1, keepdims=True))
    indices = np.where(none, np.take_along_axis(indices, heaviest, 1), indices)
    weights = np.where(none | (np.arange(weights.shape[1]) == heaviest), share, weights)
    if how.transformation == "tf_crop_and_resize":
        indices[(at < 0) | (at > axis.before - 1)] = OUTSIDE
    return indices, weights


def _round(at: Array, mode: str, scale: float) -> Array:
    if mode == "outwards":
        return np.ceil(at) if scale < 1 else np.floor(at)
    if mode == "round_prefer_floor":
        return np.asarray(np.ceil(at - 0.5))
    if mode == "round_prefer_ceil":
        return np.asarray(np.floor(at + 0.5))
    if mode in ("floor", "ceil"):
        return np.asarray(np.floor(at) if mode == "floor" else np.ceil(at))
    raise NotCompiled(f"nearest_mode {mode!r}")


def _cubic(d: Array, a: float) -> Array:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """Each axis of the size that the operator's text gives it."""
    x = required(inputs, 0)
    if settings(node).mode != "nearest":
        float_only(x)
    return [TensorType(x.dtype, tuple(axis.after for axis in axes(node, inputs)))]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One step per axis that changes; a block is one row of the output, or all positions of the last axis."""
    x, y = required(inputs, 0), required(outputs, 0)
    how = settings(node)
    busy = sorted((axis for axis in axes(node, inputs) if not axis.idle), key=lambda axis: (axis.after > axis.before, -axis.number))
    if not busy:
        return [Alias(y, x)]
    steps: list[Step | Alias] = []
    shape = list(x.shape)
    source: Value | Scratch = x
    for position, axis in enumerate(busy):
        outer, inner = math.prod(shape[: axis.number]), math.prod(shape[axis.number + 1 :])
        shape[axis.number] = axis.after
        item = ITEM_BYTES[x.dtype]
        last = position == len(busy) - 1
        to: Value | Scratch = y if last else Scratch(f"axis {axis.number}", math.prod(shape) * item)
        steps.append(_step(node, x.dtype, source, to, axis, how, outer, inner))
        source = to
    return steps


def _step(node: Node, dtype: str, source: Value | Scratch, to: Value | Scratch, axis: Axis, how: Settings, outer: int, inner: int) -> Step:
    indices, weights = table(axis, how)
    taps = indices.shape[1]
    key = f"{node.outputs[0]}:{axis}"
    count = outer * inner * axis.after
    sizes = (axis.before, axis.after, inner)
    blocks = outer if inner == 1 else outer * axis.after
    places = Packed(f"{key}:indices", lambda: indices)
    outside = bool((indices == OUTSIDE).any())
    cost = CALL_NS + count * taps * TAP_NS
    if how.mode == "nearest":
        statics = {"dtype": dtype, "last": inner == 1, "outside": outside, "extrapolation": how.extrapolation}
        return Step("take_axis", statics, (source, to, places), sizes, blocks, cost, (1,))
    weighted = Packed(f"{key}:weights", lambda: weights.astype(dtype))
    statics = {"dtype": dtype, "taps": taps, "last": inner == 1, "outside": outside, "extrapolation": how.extrapolation}
    return Step("resize_axis", statics, (source, to, places, weighted), sizes, blocks, cost, (1,))


OPERATORS = {("", "Resize"): Operator(infer, lower), ("", "Upsample"): Operator(infer, lower)}
