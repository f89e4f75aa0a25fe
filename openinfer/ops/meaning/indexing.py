"""Gather and Scatter operators and OneHot, with indices that only the device knows.

An index outside its axis is clipped, and the call told (`Call.must_be_inside`). Scatter sorts its updates by place, joins those of one
place by a segmented scan and writes each place once: no atomics, so the result is the same in every run.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from openinfer.ops._base import NotCompiled, axis_of
from openinfer.ops.meaning._base import Call, Meaning, Meanings

JOINS = {"add": lambda xp, a, b: a + b, "mul": lambda xp, a, b: a * b, "min": lambda xp, a, b: xp.minimum(a, b)}
JOINS["max"] = lambda xp, a, b: xp.maximum(a, b)


def _wrapped(call: Call, indices: Any, size: int) -> Any:
    """Indices counted from the front and clipped to the axis."""
    index = indices.astype("int64")
    index = call.xp.where(index < 0, index + size, index)
    call.must_be_inside((index >= 0) & (index < size))
    return call.xp.clip(index, 0, max(0, size - 1))


def _gather(call: Call) -> list[Any]:
    xp, x, indices = call.xp, call.array(0), call.array(1)
    axis = axis_of(call.attribute("axis", 0), x.ndim)
    index = _wrapped(call, indices, x.shape[axis])
    if not x.shape[axis]:
        return [xp.zeros((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)]
    return [xp.take(x, index, axis)]


def _gather_elements(call: Call) -> list[Any]:
    xp, x, indices = call.xp, call.array(0), call.array(1)
    axis = axis_of(call.attribute("axis", 0), x.ndim)
    if indices.ndim != x.ndim or any(i > d for a, (i, d) in enumerate(zip(indices.shape, x.shape, strict=True)) if a != axis):
        raise NotCompiled(f"indices of shape {indices.shape} into {x.shape}")
    index = _wrapped(call, indices, x.shape[axis])
    part = x[tuple(slice(None) if a == axis else slice(0, d) for a, d in enumerate(indices.shape))]
    return [xp.take_along_axis(part, index, axis)]


def _places(call: Call, indices: Any, dims: tuple[int, ...]) -> Any:
    """Rows of coordinates as flat positions in a tensor of `dims`."""
    flat = call.xp.zeros(indices.shape[:-1], "int64")
    for axis, d in enumerate(dims):
        flat = flat * d + _wrapped(call, indices[..., axis], d)
    return flat


def _gather_nd(call: Call) -> list[Any]:
    xp, x, indices, batch = call.xp, call.array(0), call.array(1), call.attribute("batch_dims", 0)
    depth = indices.shape[-1]
    dims, tail = x.shape[batch : batch + depth], x.shape[batch + depth :]
    if not 1 <= depth <= x.ndim - batch or indices.shape[:batch] != x.shape[:batch]:
        raise NotCompiled(f"indices of shape {indices.shape} into {x.shape} after {batch} batch dimensions")
    flat = _places(call, indices, dims)
    batches, rows = math.prod(x.shape[:batch]), math.prod(dims)
    begins = call.keep((batches, rows), lambda: np.arange(batches) * rows)
    at = flat.reshape(batches, -1) + begins.reshape(-1, 1)
    return [xp.take(x.reshape(batches * rows, -1), at.reshape(-1), 0).reshape(*indices.shape[:-1], *tail)]


def scatter(xp: Any, rows: Any, keys: Any, updates: Any, reduction: str) -> Any:
    """`rows` [R, S] with `updates` [Q, S] joined into rows `keys` [Q]; of equal keys the last one counts, or all of them."""
    count, dump = keys.shape[0], rows.shape[0]
    if not count:
        return rows
    order = xp.argsort(keys, kind="stable")
    keys, updates = xp.take(keys, order, 0), xp.take(updates, order, 0)
    if reduction != "none":
        step = 1
        while step < count:
            same = (keys[step:] == keys[:-step]).reshape(-1, 1)
            joined = JOINS[reduction](xp, updates[:-step], updates[step:])
            updates = xp.concatenate([updates[:step], xp.where(same, joined, updates[step:])], 0)
            step *= 2
    # All but the last of equal keys go to a row of their own behind the others.
    last = xp.concatenate([keys[1:] != keys[:-1], xp.ones(1, "bool")], 0)
    padded = xp.concatenate([rows, xp.zeros((1, rows.shape[1]), rows.dtype)], 0)
    keys = xp.where(last, keys, dump)
    padded[keys] = updates if reduction == "none" else JOINS[reduction](xp, xp.take(padded, keys, 0), updates)
    return padded[:-1]


def _reduction(call: Call) -> str:
    reduction = str(call.attribute("reduction", "none"))
    if reduction not in ("none", *JOINS):
        raise NotCompiled(f"reduction {reduction!r}")
    return reduction


def _scatter_elements(call: Call) -> list[Any]:
    xp, x, indices, updates = call.xp, call.array(0), call.array(1), call.array(2)
    axis = axis_of(call.attribute("axis", 0), x.ndim)
    if indices.shape != updates.shape or indices.ndim != x.ndim:
        raise NotCompiled(f"updates of shape {updates.shape} for indices {indices.shape} into {x.shape}")
    index = _wrapped(call, indices, x.shape[axis])
    flat = xp.zeros(indices.shape, "int64")
    for a, (d, size) in enumerate(zip(indices.shape, x.shape, strict=True)):
        at = index if a == axis else call.keep(d, functools.partial(np.arange, d)).reshape(*[1] * a, d, *[1] * (x.ndim - a - 1))
        flat = flat * size + at
    rows = scatter(xp, x.reshape(-1, 1), flat.reshape(-1), updates.reshape(-1, 1), _reduction(call))
    return [rows.reshape(x.shape)]


def _scatter_nd(call: Call) -> list[Any]:
    xp, x, indices, updates = call.xp, call.array(0), call.array(1), call.array(2)
    depth = indices.shape[-1]
    dims, tail = x.shape[:depth], x.shape[depth:]
    if not 1 <= depth <= x.ndim or tuple(updates.shape) != (*indices.shape[:-1], *tail):
        raise NotCompiled(f"updates of shape {updates.shape} for indices {indices.shape} into {x.shape}")
    flat = _places(call, indices, dims)
    width = math.prod(tail)
    rows = scatter(xp, x.reshape(math.prod(dims), width), flat.reshape(-1), updates.reshape(-1, width), _reduction(call))
    return [rows.reshape(x.shape)]


def _one_hot(call: Call) -> list[Any]:
    xp, indices, content = call.xp, call.array(0), call.array(2)
    depth = (call.integers(1) or [0])[0]
    axis = axis_of(call.attribute("axis", -1), indices.ndim + 1)
    index = indices.astype("int64")
    index = xp.expand_dims(xp.where(index < 0, index + depth, index), axis)
    places = call.keep(depth, lambda: np.arange(depth)).reshape(*[1] * axis, depth, *[1] * (indices.ndim - axis))
    return [xp.where(index == places, content[1], content[0])]


MEANINGS: Meanings = {
    ("", "Gather"): Meaning(_gather),
    ("", "GatherElements"): Meaning(_gather_elements),
    ("", "GatherND"): Meaning(_gather_nd),
    ("", "Scatter"): Meaning(_scatter_elements),
    ("", "ScatterElements"): Meaning(_scatter_elements),
    ("", "ScatterND"): Meaning(_scatter_nd),
    ("", "OneHot"): Meaning(_one_hot, (1,)),
}
