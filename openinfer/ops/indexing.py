"""GatherElements, GatherND, ScatterElements, ScatterND and OneHot, with indices that may be computed at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.errors import ModelError
from openinfer.ir.graph import ITEM_BYTES, Node, TensorType
from openinfer.ops._base import INTEGERS, NUMBERS, Alias, NotCompiled, Operator, Step, Target, Value, axis_of, known, required
from openinfer.ops.movement import contiguous, copy

ELEMENT_NS, CALL_NS = 1.5, 10.0
REDUCTIONS = ("none", "add", "mul", "min", "max")

Inputs = Sequence[Value | None]


def _elements(node: Node, inputs: Inputs) -> tuple[Value, Value, int]:
    """The data, the indices, the axis; refused where a known index lies outside."""
    x, indices = required(inputs, 0), required(inputs, 1)
    axis = axis_of(node.attribute("axis", 0), len(x.shape))
    if indices.dtype not in ("int32", "int64") or len(indices.shape) != len(x.shape):
        raise NotCompiled(f"indices {indices.dtype} {indices.shape} into {x.shape}")
    if any(i > d for a, (i, d) in enumerate(zip(indices.shape, x.shape, strict=True)) if a != axis):
        raise NotCompiled(f"indices of shape {indices.shape} into {x.shape}")
    data, size = indices.data, x.shape[axis]
    if data is not None and data.size and not (-size <= data.min() and data.max() < size):
        raise ModelError(f"{node.op} {node.outputs[0]!r}: found indices outside axis {axis} of size {size}; mend the model")
    return x, indices, axis


def infer_gather_elements(node: Node, inputs: Inputs) -> list[TensorType]:
    """The data's dtype, the indices' shape."""
    x, indices, _ = _elements(node, inputs)
    return [TensorType(x.dtype, indices.shape)]


def lower_gather_elements(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One step; a block is one element."""
    x, indices, axis = _elements(node, inputs)
    y, rank = required(outputs, 0), len(x.shape)
    statics = {"item_bytes": ITEM_BYTES[x.dtype], "index": indices.dtype, "rank": rank, "axis": axis}
    sizes = (x.shape[axis], *indices.shape, *contiguous(x.shape))
    return [Step("gather_elements", statics, (x, indices, y), sizes, y.type.count, CALL_NS + ELEMENT_NS * y.type.count, (2,))]


def infer_scatter(node: Node, inputs: Inputs) -> list[TensorType]:
    """The data's type."""
    x, updates = required(inputs, 0), required(inputs, 2)
    if x.dtype not in NUMBERS or updates.dtype != x.dtype:
        raise NotCompiled(f"updates of {updates.dtype} into {x.dtype}")
    if node.attribute("reduction", "none") not in REDUCTIONS:
        raise ModelError(f"{node.op}: reduction {node.attribute('reduction')!r}; allowed: {', '.join(REDUCTIONS)}")
    return [x.type]


def lower_scatter_elements(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """A copy, then the updates in their order."""
    x, indices, axis = _elements(node, inputs)
    updates, y, rank = required(inputs, 2), required(outputs, 0), len(x.shape)
    if updates.shape != indices.shape:
        raise NotCompiled(f"updates of shape {updates.shape} for indices {indices.shape}")
    reduction = node.attribute("reduction", "none")
    statics = {"dtype": x.dtype, "index": indices.dtype, "rank": rank, "axis": axis, "reduction": reduction}
    sizes = (x.shape[axis], *indices.shape, *contiguous(x.shape))
    step = Step("scatter_elements", statics, (updates, indices, y), sizes, 1, CALL_NS + ELEMENT_NS * updates.type.count, (2,))
    return [_copied(x, y), step]


def _copied(x: Value, y: Value) -> Step:
    return copy(x, y, x.shape, contiguous(x.shape), contiguous(y.shape))


def _slices(x: Value, indices: Value, batch: int) -> tuple[int, tuple[int, ...]]:
    """How many coordinates a row of indices holds, and the shape of the slice it names."""
    if indices.dtype != "int64" or not indices.shape or batch >= len(indices.shape):
        raise NotCompiled(f"indices {indices.dtype} {indices.shape}")
    depth = indices.shape[-1]
    if not 1 <= depth <= len(x.shape) - batch or indices.shape[:batch] != x.shape[:batch]:
        raise NotCompiled(f"indices of shape {indices.shape} into {x.shape} after {batch} batch dimensions")
    return depth, x.shape[batch + depth :]


def infer_gather_nd(node: Node, inputs: Inputs) -> list[TensorType]:
    """The indices' shape without its last dimension, then the slice's."""
    x, indices = required(inputs, 0), required(inputs, 1)
    _, shape = _slices(x, indices, node.attribute("batch_dims", 0))
    return [TensorType(x.dtype, (*indices.shape[:-1], *shape))]


def lower_gather_nd(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One step; a block is one slice."""
    x, indices, y, batch = required(inputs, 0), required(inputs, 1), required(outputs, 0), node.attribute("batch_dims", 0)
    depth, shape = _slices(x, indices, batch)
    rows, total = math.prod(indices.shape[batch:-1]), math.prod(indices.shape[:-1])
    table = (*x.shape[batch : batch + depth], *contiguous(x.shape)[batch : batch + depth])
    sizes = (rows, math.prod(x.shape[batch:]), math.prod(shape), *table)
    statics = {"item_bytes": ITEM_BYTES[x.dtype], "depth": depth}
    return [Step("gather_slices", statics, (x, indices, y), sizes, total, CALL_NS + ELEMENT_NS * y.type.count, (2,))]


def lower_scatter_nd(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """A copy, then the slices in their order."""
    x, indices, updates, y = required(inputs, 0), required(inputs, 1), required(inputs, 2), required(outputs, 0)
    depth, shape = _slices(x, indices, 0)
    if updates.shape != (*indices.shape[:-1], *shape):
        raise NotCompiled(f"updates of shape {updates.shape} for indices {indices.shape}")
    statics = {"dtype": x.dtype, "depth": depth, "reduction": node.attribute("reduction", "none")}
    sizes = (math.prod(indices.shape[:-1]), math.prod(shape), *x.shape[:depth], *contiguous(x.shape)[:depth])
    step = Step("scatter_slices", statics, (updates, indices, y), sizes, 1, CALL_NS + ELEMENT_NS * updates.type.count, (2,))
    return [_copied(x, y), step]


def _one_hot(node: Node, inputs: Inputs) -> tuple[Value, Value, int, int]:
    """Indices, values, depth, axis."""
    indices, values = required(inputs, 0), required(inputs, 2)
    depth = int(np.asarray(known(required(inputs, 1), "the depth")).reshape(-1)[0])
    rank = len(indices.shape) + 1
    if indices.dtype not in INTEGERS or values.dtype not in ITEM_BYTES or depth < 0 or values.shape != (2,):
        raise NotCompiled(f"indices of {indices.dtype}, depth {depth}, values {values.dtype} {values.shape}")
    return indices, values, depth, axis_of(node.attribute("axis", -1), rank)


def infer_one_hot(node: Node, inputs: Inputs) -> list[TensorType]:
    """The indices' shape with the depth inserted at the axis, in the values' dtype."""
    indices, values, depth, axis = _one_hot(node, inputs)
    return [TensorType(values.dtype, (*indices.shape[:axis], depth, *indices.shape[axis:]))]


def lower_one_hot(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One step; a block is one index."""
    indices, values, depth, axis = _one_hot(node, inputs)
    y = required(outputs, 0)
    statics = {"index": indices.dtype, "item_bytes": ITEM_BYTES[values.dtype]}
    sizes = (depth, math.prod(indices.shape[axis:]))
    return [Step("one_hot", statics, (indices, values, y), sizes, indices.type.count, CALL_NS + ELEMENT_NS * y.type.count, (2,))]


OPERATORS = {
    ("", "GatherElements"): Operator(infer_gather_elements, lower_gather_elements),
    ("", "GatherND"): Operator(infer_gather_nd, lower_gather_nd),
    ("", "Scatter"): Operator(infer_scatter, lower_scatter_elements),
    ("", "ScatterElements"): Operator(infer_scatter, lower_scatter_elements),
    ("", "ScatterND"): Operator(infer_scatter, lower_scatter_nd),
    ("", "OneHot"): Operator(infer_one_hot, lower_one_hot),
}
