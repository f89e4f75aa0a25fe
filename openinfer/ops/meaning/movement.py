"""Operators that move elements, and those that follow from shapes alone."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from openinfer.ops._base import NotCompiled, axis_of
from openinfer.ops.meaning._base import Call, Meaning, Meanings


def _axes(call: Call, position: int, since: int, rank: int) -> list[int] | None:
    """Axes from an attribute before opset `since`, from an input after."""
    given = call.attribute("axes") if call.node.version < since else call.integers(position)
    return None if given is None else [axis_of(axis, rank) for axis in given]


def _identity(call: Call) -> list[Any]:
    return [call.array(0)]


def _reshape(call: Call) -> list[Any]:
    x = call.array(0)
    shape = [int(d) for d in call.attribute("shape")] if call.node.version < 5 else call.integers(1)
    if shape is None:
        raise NotCompiled("no shape")
    if not call.attribute("allowzero", 0):
        shape = [x.shape[axis] if d == 0 else d for axis, d in enumerate(shape)]
    return [x.reshape(tuple(shape))]


def _flatten(call: Call) -> list[Any]:
    x = call.array(0)
    given = call.attribute("axis", 1)
    axis = x.ndim if given == x.ndim else axis_of(given, x.ndim)
    return [x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))]


def _squeeze(call: Call) -> list[Any]:
    x = call.array(0)
    axes = _axes(call, 1, 13, x.ndim)
    gone = [axis for axis, d in enumerate(x.shape) if d == 1] if axes is None else axes
    if any(x.shape[axis] != 1 for axis in gone):
        raise NotCompiled(f"axes {gone} of shape {x.shape} are not all 1")
    return [x.reshape(tuple(d for axis, d in enumerate(x.shape) if axis not in gone))]


def _unsqueeze(call: Call) -> list[Any]:
    x = call.array(0)
    given = [int(axis) for axis in call.attribute("axes")] if call.node.version < 13 else call.integers(1) or []
    rank = x.ndim + len(given)
    axes = {axis_of(axis, rank) for axis in given}
    if len(axes) != len(given):
        raise NotCompiled(f"axes {given} name one dimension twice")
    remaining = iter(x.shape)
    return [x.reshape(tuple(1 if axis in axes else next(remaining) for axis in range(rank)))]


def _transpose(call: Call) -> list[Any]:
    x = call.array(0)
    return [x.transpose(tuple(call.attribute("perm", tuple(reversed(range(x.ndim))))))]


def _concat(call: Call) -> list[Any]:
    values = [call.array(position) for position in range(len(call.inputs))]
    if len({value.dtype for value in values}) != 1:
        raise NotCompiled("operands of several dtypes")
    return [call.xp.concatenate(values, axis_of(call.attribute("axis", 1), values[0].ndim))]


def _split(call: Call) -> list[Any]:
    x = call.array(0)
    axis = axis_of(call.attribute("axis", 0), x.ndim)
    sizes = list(call.attribute("split", ())) if call.node.version < 13 else call.integers(1)
    if not sizes:
        count = call.attribute("num_outputs", len(call.node.outputs))
        part = -(-x.shape[axis] // count)
        sizes = [min(part, max(0, x.shape[axis] - part * index)) for index in range(count)]
    if min(sizes, default=0) < 0 or sum(sizes) != x.shape[axis]:
        raise NotCompiled(f"parts of {sizes} of axis {axis} of size {x.shape[axis]}")
    parts, at = [], 0
    for size in sizes:
        parts.append(x[(*[slice(None)] * axis, slice(at, at + size))])
        at += size
    return parts


def _slice(call: Call) -> list[Any]:
    x = call.array(0)
    if call.node.version < 10:
        starts, ends = list(call.attribute("starts")), list(call.attribute("ends"))
        axes, steps = call.attribute("axes"), None
    else:
        starts, ends, axes, steps = call.integers(1) or [], call.integers(2) or [], call.integers(3), call.integers(4)
    axes = list(range(len(starts))) if axes is None else list(axes)
    steps = [1] * len(starts) if steps is None else steps
    window: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = axis_of(axis, x.ndim)
        places = range(x.shape[at])[slice(start, end, step)]
        # Counted again: a range that ends before the first element would wrap.
        stop = places.stop if places.stop >= 0 else None
        window[at] = slice(places.start, stop, places.step) if len(places) else slice(0, 0)
    return [x[tuple(window)]]


def _expand(call: Call) -> list[Any]:
    x = call.array(0)
    return [call.xp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(call.integers(1) or ())))]


def _tile(call: Call) -> list[Any]:
    if call.node.version < 6:
        raise NotCompiled(f"opset {call.node.version}; its meaning is that of 6 and later")
    return [call.xp.tile(call.array(0), tuple(call.integers(1) or ()))]


def _pad(call: Call) -> list[Any]:
    xp, x = call.xp, call.array(0)
    pads = list(call.attribute("pads", call.attribute("paddings", ()))) if call.node.version < 11 else call.integers(1) or []
    given = call.integers(3)
    axes = list(range(x.ndim)) if given is None else [axis_of(axis, x.ndim) for axis in given]
    if len(pads) != 2 * len(axes):
        raise NotCompiled(f"{len(pads)} pads for {len(axes)} axes")
    before, after = [0] * x.ndim, [0] * x.ndim
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        content = call.attribute("value", 0.0) if call.node.version < 11 else 0
        value = call.optional(2) if call.node.version >= 11 else None
        y = xp.empty(tuple(d + low + high for d, low, high in zip(x.shape, before, after, strict=True)), x.dtype)
        y[...] = content if value is None else value.reshape(())
        inner = tuple(slice(max(0, low), size - max(0, high)) for low, high, size in zip(before, after, y.shape, strict=True))
        y[inner] = _cropped(x, before, after)
        return [y]
    # Every other mode repeats what is there: a position of the output is a position of the input, axis by axis.
    for axis, (d, low, high) in enumerate(zip(x.shape, before, after, strict=True)):
        if low or high:
            x = xp.take(x, call.keep((axis, d, low, high), functools.partial(_places, mode, d, low, high)), axis)
    return [x]


def _cropped(x: Any, before: list[int], after: list[int]) -> Any:
    """Negative pads take away."""
    return x[tuple(slice(max(0, -low), d - max(0, -high)) for d, low, high in zip(x.shape, before, after, strict=True))]


def _places(mode: str, d: int, low: int, high: int) -> Any:
    at = np.arange(-low, d + high)
    if mode == "edge":
        return np.clip(at, 0, d - 1)
    if mode == "wrap":
        return at % d
    if mode == "reflect":
        period = max(1, 2 * (d - 1))
        at = np.abs(at) % period
        return np.where(at >= d, period - at, at)
    raise NotCompiled(f"mode {mode!r}")


def _depth_to_space(call: Call) -> list[Any]:
    x, b = call.array(0), call.attribute("blocksize")
    n, c, h, w = x.shape
    if call.attribute("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [y.reshape(n, c // (b * b), h * b, w * b)]


def _space_to_depth(call: Call) -> list[Any]:
    x, b = call.array(0), call.attribute("blocksize")
    n, c, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if call.attribute("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return [x.reshape(n, c, h // b, b, w // b, b).transpose(order).reshape(n, c * b * b, h // b, w // b)]


def _reverse_sequence(call: Call) -> list[Any]:
    """Each sequence up to its own length backwards, the rest as it is."""
    xp, x, lengths = call.xp, call.array(0), call.array(1)
    time, batch = call.attribute("time_axis", 0), call.attribute("batch_axis", 1)
    if {time, batch} != {0, 1} or x.ndim < 2:
        raise NotCompiled(f"time_axis {time} and batch_axis {batch} of rank {x.ndim}")
    steps, length = xp.arange(x.shape[time]).reshape(-1, 1), lengths.reshape(1, -1)
    places = xp.where(steps < length, length - 1 - steps, steps)
    places = (places if time == 0 else places.T).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return [xp.take_along_axis(x, xp.broadcast_to(places, x.shape), time)]


def _constant_of_shape(call: Call) -> list[Any]:
    content = np.asarray(call.attribute("value", np.zeros(1, np.float32))).reshape(-1)
    y = call.xp.empty(tuple(call.integers(0) or ()), content.dtype)
    y[...] = content[0]
    return [y]


def _range(call: Call) -> list[Any]:
    start, limit, delta = (np.asarray(call.array(position)).reshape(()) for position in range(3))
    if start.dtype.kind == "f":
        count = max(0, math.ceil((float(limit) - float(start)) / float(delta)))
    else:
        count = max(0, -((int(start) - int(limit)) // int(delta)))
    steps = call.xp.arange(count).astype(start.dtype)
    return [steps * delta.astype(start.dtype)[()] + start[()]]


def _eye_like(call: Call) -> list[Any]:
    from openinfer.ops.elementwise import ONNX_DTYPES

    x, to = call.array(0), call.attribute("dtype")
    if to is not None and to not in ONNX_DTYPES:
        raise NotCompiled(f"element type {to}")
    return [call.xp.eye(*x.shape, k=call.attribute("k", 0), dtype=x.dtype if to is None else ONNX_DTYPES[to])]


def _shape(call: Call) -> list[Any]:
    """Always on the host: a shape is known without looking at the array."""
    window = slice(call.attribute("start", 0), call.attribute("end"))
    return [np.asarray(call.array(0).shape[window], np.int64)]


def _size(call: Call) -> list[Any]:
    return [np.asarray(math.prod(call.array(0).shape), np.int64)]


MEANINGS: Meanings = {
    ("", "Identity"): Meaning(_identity),
    ("", "Reshape"): Meaning(_reshape, (1,)),
    ("", "Flatten"): Meaning(_flatten),
    ("", "Squeeze"): Meaning(_squeeze, (1,)),
    ("", "Unsqueeze"): Meaning(_unsqueeze, (1,)),
    ("", "Transpose"): Meaning(_transpose),
    ("", "Concat"): Meaning(_concat),
    ("", "Split"): Meaning(_split, (1,)),
    ("", "Slice"): Meaning(_slice, (1, 2, 3, 4)),
    ("", "Expand"): Meaning(_expand, (1,)),
    ("", "Tile"): Meaning(_tile, (1,)),
    ("", "Pad"): Meaning(_pad, (1, 3)),
    ("", "ReverseSequence"): Meaning(_reverse_sequence),
    ("", "DepthToSpace"): Meaning(_depth_to_space),
    ("", "SpaceToDepth"): Meaning(_space_to_depth),
    ("", "ConstantOfShape"): Meaning(_constant_of_shape, (0,)),
    ("", "Range"): Meaning(_range, (0, 1, 2)),
    ("", "EyeLike"): Meaning(_eye_like),
    ("", "Shape"): Meaning(_shape),
    ("", "Size"): Meaning(_size),
}
