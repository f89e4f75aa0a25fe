"""Reductions over neighbouring axes. Sums run in float64 (integers in int64), first to last."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Node, TensorType
from openinfer.ops._base import FLOATS, Alias, NotCompiled, Operator, Step, Target, Value, known, optional, required

ELEMENT_NS = 1.2
OPERATIONS = {
    "ReduceSum": 13,
    "ReduceMean": 18,
    "ReduceMax": 18,
    "ReduceMin": 18,
    "ReduceProd": 18,
    "ReduceL1": 18,
    "ReduceL2": 18,
    "ReduceSumSquare": 18,
}
INTEGER_OPERATIONS = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")


def _axes(node: Node, inputs: Sequence[Value | None], rank: int) -> list[int]:
    """The axes to reduce, ascending."""
    if node.op.startswith("Global"):
        return list(range(2, rank))
    if node.version < OPERATIONS[node.op]:
        given = node.attribute("axes")
    else:
        value = optional(inputs, 1)
        given = None if value is None else [int(axis) for axis in np.asarray(known(value, "the list of axes")).reshape(-1)]
        if not given and node.attribute("noop_with_empty_axes", 0):
            raise NotCompiled("a reduction over no axes")
    return sorted(axis % rank for axis in given) if given else list(range(rank))


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """The input's shape with the reduced axes 1, or gone."""
    x = required(inputs, 0)
    if x.dtype not in FLOATS and not (x.dtype in ("int32", "int64") and node.op in INTEGER_OPERATIONS):
        raise NotCompiled(f"dtype {x.dtype}")
    axes = _axes(node, inputs, len(x.shape))
    if not axes or axes != list(range(axes[0], axes[-1] + 1)):
        raise NotCompiled(f"axes {axes} that are not neighbours")
    if math.prod(x.shape[axis] for axis in axes) == 0:
        raise NotCompiled("a reduction of nothing")
    keep = node.attribute("keepdims", 1) or node.op.startswith("Global")
    return [TensorType(x.dtype, tuple(1 if axis in axes else d for axis, d in enumerate(x.shape) if keep or axis not in axes))]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One `reduce` step; a block is one result."""
    x, y = required(inputs, 0), required(outputs, 0)
    axes = _axes(node, inputs, len(x.shape))
    size, inner = math.prod(x.shape[axis] for axis in axes), math.prod(x.shape[axes[-1] + 1 :])
    operation = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}.get(node.op, node.op)
    return [
        Step(
            "reduce", {"operation": operation, "dtype": x.dtype}, (x, y), (size, inner), y.type.count, 10 + ELEMENT_NS * x.type.count, (1,)
        )
    ]


OPERATORS = {("", name): Operator(infer, lower) for name in (*OPERATIONS, "GlobalAveragePool", "GlobalMaxPool")}
