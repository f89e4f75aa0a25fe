"""Reductions over any axes. Axes that are not neighbours are brought together by a copy; the order of a sum depends on its length alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import ITEM_BYTES, Node, TensorType
from openinfer.ops._base import (
    FLOATS,
    INTEGERS,
    Alias,
    NotCompiled,
    Operand,
    Operator,
    Packed,
    Scratch,
    Step,
    Target,
    Value,
    axis_of,
    known,
    optional,
    required,
)
from openinfer.ops.movement import FILL_BLOCK, contiguous, copy

COLUMNS = 256  # neighbouring results that one block of `reduce_columns` accumulates at once
LINE_NS, COLUMN_NS, ELEMENT_NS, EXP_NS, CALL_NS = 0.1, 0.3, 1.2, 6.0, 10.0
# Operator → opset from which the axes are an input.
OPERATIONS = {
    "ReduceSum": 13,
    **{f"Reduce{name}": 18 for name in ("Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")},
}
INTEGER_OPERATIONS = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare")
GLOBAL = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
EMPTY = {"ReduceProd": 1.0, "ReduceMean": math.nan, "ReduceMax": -math.inf, "ReduceMin": math.inf, "ReduceLogSum": -math.inf}
EMPTY["ReduceLogSumExp"] = -math.inf

Inputs = Sequence[Value | None]


def axes(node: Node, inputs: Inputs, rank: int) -> list[int]:
    """The axes to reduce, ascending."""
    if node.op in GLOBAL:
        return list(range(2, rank))
    if node.version < OPERATIONS[node.op]:
        given = node.attribute("axes")
    else:
        value = optional(inputs, 1)
        given = None if value is None else [int(axis) for axis in np.asarray(known(value, "the list of axes")).reshape(-1)]
        if not given and node.attribute("noop_with_empty_axes", 0):
            return []
    return sorted({axis_of(axis, rank) for axis in given}) if given else list(range(rank))


def infer(node: Node, inputs: Inputs) -> list[TensorType]:
    """The input's shape with the reduced axes 1, or gone."""
    x = required(inputs, 0)
    operation = GLOBAL.get(node.op, node.op)
    whole = x.dtype in INTEGERS and operation in INTEGER_OPERATIONS
    if x.dtype not in FLOATS and not whole and not (x.dtype == "bool" and operation in ("ReduceMax", "ReduceMin")):
        raise NotCompiled(f"dtype {x.dtype}")
    over = axes(node, inputs, len(x.shape))
    keep = node.attribute("keepdims", 1) or node.op in GLOBAL
    return [TensorType(x.dtype, tuple(1 if axis in over else d for axis, d in enumerate(x.shape) if keep or axis not in over))]


def lower(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One step, after a copy where the axes are not neighbours; a block is one result, or some neighbouring ones."""
    x, y = required(inputs, 0), required(outputs, 0)
    over = axes(node, inputs, len(x.shape))
    operation = GLOBAL.get(node.op, node.op)
    size = math.prod(x.shape[axis] for axis in over)
    if size == 0:
        return [_fill_empty(operation, y)]
    steps: list[Step | Alias] = []
    source: Operand = x
    last = not over or over[-1] == len(x.shape) - 1
    inner = 1 if last else math.prod(x.shape[over[-1] + 1 :])
    if over and over != list(range(over[0], over[-1] + 1)):
        kept = [axis for axis in range(len(x.shape)) if axis not in over]
        order, strides = [*kept, *over], contiguous(x.shape)
        source = Scratch("lines", x.type.size_bytes)
        sizes = [x.shape[axis] for axis in order]
        steps.append(copy(x, source, sizes, [strides[axis] for axis in order], contiguous(sizes)))
        last, inner = True, 1
    count = x.type.count
    if operation == "ReduceLogSumExp":
        steps.append(Step("log_sum_exp", {"dtype": x.dtype}, (source, y), (size, inner), y.type.count, CALL_NS + EXP_NS * count, (1,)))
    elif last:
        cost = CALL_NS + (LINE_NS if x.dtype in FLOATS else ELEMENT_NS) * count
        steps.append(Step("reduce", {"operation": operation, "dtype": x.dtype}, (source, y), (size,), y.type.count, cost, (1,)))
    else:
        partial = Scratch("partial", COLUMNS * 8, per_thread=True)
        blocks = y.type.count // inner * -(-inner // COLUMNS) if inner else 0
        statics = {"operation": operation, "dtype": x.dtype}
        steps.append(Step("reduce_columns", statics, (source, partial, y), (size, inner), blocks, CALL_NS + COLUMN_NS * count, (1, 2)))
    return steps


def _fill_empty(operation: str, y: Value) -> Step:
    """The value of a reduction over no elements."""
    number = EMPTY.get(operation, 0.0)
    if y.dtype not in FLOATS and not math.isfinite(number):
        raise NotCompiled("the extreme of no integers")
    value = Packed(f"number {number} {y.dtype}", lambda: np.array([number]).astype(y.dtype))
    count = y.type.count
    statics = {"item_bytes": ITEM_BYTES[y.dtype], "block": FILL_BLOCK}
    return Step("fill", statics, (value, y), (count,), -(-count // FILL_BLOCK), CALL_NS, (1,))


def infer_arg(node: Node, inputs: Inputs) -> list[TensorType]:
    """int64, the axis 1 or gone."""
    x = required(inputs, 0)
    if x.dtype not in (*FLOATS, *INTEGERS):
        raise NotCompiled(f"dtype {x.dtype}")
    axis = axis_of(node.attribute("axis", 0), len(x.shape))
    if not x.shape[axis]:
        raise NotCompiled(f"the extreme of axis {axis} of shape {x.shape}")
    return [TensorType("int64", (*x.shape[:axis], *(1,) * bool(node.attribute("keepdims", 1)), *x.shape[axis + 1 :]))]


def lower_arg(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One `arg_extreme` step."""
    x, y = required(inputs, 0), required(outputs, 0)
    axis = axis_of(node.attribute("axis", 0), len(x.shape))
    statics = {"dtype": x.dtype, "maximum": node.op == "ArgMax", "last": bool(node.attribute("select_last_index", 0))}
    sizes = (x.shape[axis], math.prod(x.shape[axis + 1 :]))
    return [Step("arg_extreme", statics, (x, y), sizes, y.type.count, CALL_NS + ELEMENT_NS * x.type.count, (1,))]


OPERATORS = {
    **{("", name): Operator(infer, lower) for name in (*OPERATIONS, *GLOBAL)},
    **{("", name): Operator(infer_arg, lower_arg) for name in ("ArgMax", "ArgMin")},
}
