"""Convolutions, pooling and resizing, in any number of spatial dimensions.

A convolution copies the windows of some images into the columns of a matrix and multiplies; its transpose multiplies first and adds the
columns back, tap by tap, to places that no two elements of a tap share: no atomics.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops import conv_transpose, resize
from openinfer.ops._base import NotCompiled, required
from openinfer.ops.conv_geometry import padding
from openinfer.ops.meaning._base import Call, Meaning, Meanings, values
from openinfer.ops.pool import extent

COLUMN_BYTES = 256 << 20  # of windows that lie side by side at once


def padded(xp: Any, x: Any, before: Sequence[int], after: Sequence[int], content: Any) -> Any:
    """`x` [N, C, spatial…] with `content` around its spatial dimensions."""
    if not any(before) and not any(after):
        return x
    size = x.shape[2:]
    y = xp.empty((*x.shape[:2], *(d + low + high for d, low, high in zip(size, before, after, strict=True))), x.dtype)
    y[...] = content
    y[(slice(None), slice(None), *(slice(low, low + d) for d, low in zip(size, before, strict=True)))] = x
    return y


def taps(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], output: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """For every place in the kernel, the slices of a padded image that it meets."""
    for tap in itertools.product(*(range(k) for k in kernel)):
        yield tuple(
            slice(at * dilation, at * dilation + (o - 1) * stride + 1, stride)
            for at, stride, dilation, o in zip(tap, strides, dilations, output, strict=True)
        )


def _conv(call: Call) -> list[Any]:
    xp, x, weight, bias = call.xp, call.array(0), call.array(1), call.optional(2)
    spatial, groups = x.ndim - 2, call.attribute("group", 1)
    filters, depth, kernel = weight.shape[0], weight.shape[1], weight.shape[2:]
    if x.shape[1] != depth * groups or filters % groups or len(kernel) != spatial or spatial < 1:
        raise NotCompiled(f"{x.shape[1]} channels do not fit weights {weight.shape} in {groups} groups")
    strides, dilations = (tuple(call.attribute(name, (1,) * spatial)) for name in ("strides", "dilations"))
    before, after = padding(call.node, x.shape[2:], kernel, strides, dilations)
    output = tuple(
        (d + low + high - (k - 1) * dilation - 1) // s + 1
        for d, low, high, k, dilation, s in zip(x.shape[2:], before, after, kernel, dilations, strides, strict=True)
    )
    if any(o <= 0 for o in output):
        raise NotCompiled(f"an empty output {output}")
    image = padded(xp, x, before, after, 0)
    matrix = weight.reshape(1, groups, filters // groups, depth * math.prod(kernel))
    y = xp.empty((x.shape[0], filters, *output), x.dtype)
    points = math.prod(output)
    at_once = max(1, COLUMN_BYTES // max(1, matrix.shape[-1] * groups * points * x.dtype.itemsize))
    for start in range(0, x.shape[0], at_once):
        part = image[start : start + at_once]
        found = [part[(slice(None), slice(None), *window)] for window in taps(kernel, strides, dilations, output)]
        stacked = found[0].reshape(*part.shape[:2], 1, points) if len(found) == 1 else xp.stack(found, 2)
        columns = stacked.reshape(part.shape[0], groups, depth * math.prod(kernel), points)
        y[start : start + at_once] = xp.matmul(matrix, columns).reshape(part.shape[0], filters, *output)
    return [y if bias is None else y + bias.reshape(-1, *[1] * spatial)]


def _conv_transpose(call: Call) -> list[Any]:
    xp, x, weight, bias = call.xp, call.array(0), call.array(1), call.optional(2)
    spatial, groups = x.ndim - 2, call.attribute("group", 1)
    given = values(call)
    found = conv_transpose.sizes(call.node, required(given, 0), required(given, 1))
    batch, channels, filters = x.shape[0], x.shape[1], weight.shape[1] * groups
    matrix = weight.reshape(1, groups, channels // groups, weight.shape[1] * math.prod(found.kernel)).transpose(0, 1, 3, 2)
    columns = xp.matmul(matrix, x.reshape(batch, groups, channels // groups, -1))
    columns = columns.reshape(batch, filters, math.prod(found.kernel), *x.shape[2:])
    reach = tuple(
        s * (d - 1) + (k - 1) * dilation + 1
        for d, s, k, dilation in zip(x.shape[2:], found.strides, found.kernel, found.dilations, strict=True)
    )
    size = tuple(max(r, low + o) for r, low, o in zip(reach, found.before, found.output, strict=True))
    whole = xp.zeros((batch, filters, *size), x.dtype)
    for tap, window in enumerate(taps(found.kernel, found.strides, found.dilations, x.shape[2:])):
        whole[(slice(None), slice(None), *window)] += columns[:, :, tap]
    y = whole[(slice(None), slice(None), *(slice(low, low + o) for low, o in zip(found.before, found.output, strict=True)))]
    return [y if bias is None else y + bias.reshape(-1, *[1] * spatial)]


def _max_pool(call: Call) -> list[Any]:
    xp, x = call.xp, call.array(0)
    window = extent(call.node, x.shape[2:])
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    # Windows that hang over the padding, with ceil_mode, meet nothing more there.
    after = window.reach(x.shape[2:])
    image = padded(xp, x, window.before, after, lowest)
    indexed = len(call.node.outputs) > 1
    places = call.keep((x.shape[2:], window), lambda: _numbered(x.shape[2:], window.before, after, call.attribute("storage_order", 0)))
    best = index = None
    for at in taps(window.kernel, window.strides, window.dilations, window.output):
        candidate = image[(slice(None), slice(None), *at)]
        if indexed:
            place = xp.broadcast_to(places[at], candidate.shape)
            index = place if best is None else xp.where(candidate > best, place, index)
        best = candidate if best is None else xp.maximum(best, candidate)
    if not indexed:
        return [best]
    planes = xp.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    return [best, (index + planes * math.prod(x.shape[2:])).astype("int64")]


def _numbered(size: Sequence[int], before: Sequence[int], after: Sequence[int], column_major: int) -> Any:
    """The number of each element of a padded image within the image."""
    numbers = np.arange(math.prod(size)).reshape(size, order="F" if column_major else "C")
    return np.pad(numbers, list(zip(before, after, strict=True)))


def _sums(call: Call, of: Any) -> tuple[Any, Any]:
    """Sums over windows in float64, and the windows."""
    window = extent(call.node, of.shape[2:])
    image = padded(call.xp, of, window.before, window.reach(of.shape[2:]), 0)
    total = None
    for at in taps(window.kernel, window.strides, window.dilations, window.output):
        part = image[(slice(None), slice(None), *at)]
        total = part.astype("float64") if total is None else total + part
    return total, window


def _average_pool(call: Call) -> list[Any]:
    x = call.array(0)
    total, window = _sums(call, x)
    counted = bool(call.attribute("count_include_pad", 0))
    counts = call.keep((x.shape[2:], window), lambda: window.counts(x.shape[2:], counted))
    return [(total / counts).astype(x.dtype)]


def _lp_pool(call: Call) -> list[Any]:
    x, p = call.array(0), call.attribute("p", 2)
    if call.node.version < 2:
        raise NotCompiled(f"opset {call.node.version}")
    total, _ = _sums(call, call.xp.abs(x.astype("float64")) ** p)
    return [(total ** (1.0 / p)).astype(x.dtype)]


def _global_lp_pool(call: Call) -> list[Any]:
    x, p = call.array(0), call.attribute("p", 2)
    total = call.xp.sum(call.xp.abs(x.astype("float64")) ** p, tuple(range(2, x.ndim)), keepdims=True)
    return [(total ** (1.0 / p)).astype(x.dtype)]


def _table(axis: resize.Axis, how: resize.Settings, dtype: str) -> Array:
    """The places that an axis reads, or its weights in a float `dtype`."""
    indices, weights = resize.table(axis, how)
    return indices if dtype == "int64" else weights.astype(dtype)


def _resize(call: Call) -> list[Any]:
    """One axis after the other, each output position a weighted sum of input positions (`ops/resize.py`)."""
    xp, x = call.xp, call.array(0)
    how = resize.settings(call.node)
    busy = [axis for axis in resize.axes(call.node, values(call)) if not axis.idle]
    y = x
    for axis in sorted(busy, key=lambda axis: (axis.after > axis.before, -axis.number)):
        places = call.keep((axis, "places"), functools.partial(_table, axis, how, "int64"))
        kept = None if how.mode == "nearest" else call.keep((axis, "weights"), functools.partial(_table, axis, how, x.dtype.name))
        tail = [1] * (y.ndim - axis.number - 1)
        inside = (places[:, 0] != resize.OUTSIDE).reshape(-1, *tail)
        total = None
        for tap in range(places.shape[1]):
            part = xp.take(y, xp.maximum(places[:, tap], 0), axis.number)
            part = part if kept is None else part * kept[:, tap].reshape(-1, *tail)
            total = part if total is None else total + part
        y = xp.where(inside, total, x.dtype.type(how.extrapolation)) if how.transformation == "tf_crop_and_resize" else total
    return [y]


MEANINGS: Meanings = {
    ("", "Conv"): Meaning(_conv),
    ("", "ConvTranspose"): Meaning(_conv_transpose),
    ("", "MaxPool"): Meaning(_max_pool),
    ("", "AveragePool"): Meaning(_average_pool),
    ("", "LpPool"): Meaning(_lp_pool),
    ("", "GlobalLpPool"): Meaning(_global_lp_pool),
    ("", "Resize"): Meaning(_resize, (1, 2, 3)),
    ("", "Upsample"): Meaning(_resize, (1,)),
}
