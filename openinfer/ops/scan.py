"""CumSum, CumProd and TopK: one line at a time along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Node, TensorType
from openinfer.ops._base import NUMBERS, Alias, NotCompiled, Operator, Step, Target, Value, axis_of, known, optional, required

ELEMENT_NS, CALL_NS = 1.5, 10.0

Inputs = Sequence[Value | None]


def scalar(value: Value, what: str) -> int:
    """The one number that `value` holds; `NotCompiled` where only the call knows it."""
    return int(np.asarray(known(value, what)).reshape(-1)[0])


def infer_cumulative(node: Node, inputs: Inputs) -> list[TensorType]:
    """The input's type."""
    x = required(inputs, 0)
    axis_of(scalar(required(inputs, 1), "the axis"), len(x.shape))
    if x.dtype not in NUMBERS:
        raise NotCompiled(f"dtype {x.dtype}")
    return [x.type]


def lower_cumulative(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One `scan` step."""
    x, y = required(inputs, 0), required(outputs, 0)
    axis = axis_of(scalar(required(inputs, 1), "the axis"), len(x.shape))
    size, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    statics = {
        "dtype": x.dtype,
        "product": node.op == "CumProd",
        "exclusive": bool(node.attribute("exclusive", 0)),
        "reverse": bool(node.attribute("reverse", 0)),
    }
    lines = math.prod(x.shape[:axis]) * inner if size else 0
    return [Step("scan", statics, (x, y), (size, inner), lines, CALL_NS + ELEMENT_NS * x.type.count, (1,))]


def _top(node: Node, inputs: Inputs) -> tuple[Value, int, int]:
    """The input, the axis, the number of extremes."""
    x = required(inputs, 0)
    k = int(node.attribute("k")) if node.version < 10 else scalar(required(inputs, 1), "k")
    axis = axis_of(node.attribute("axis", -1), len(x.shape))
    if x.dtype not in NUMBERS or not 0 <= k <= x.shape[axis]:
        raise NotCompiled(f"{k} of {x.dtype} {x.shape} along axis {axis}")
    return x, axis, k


def infer_top(node: Node, inputs: Inputs) -> list[TensorType]:
    """Values and int64 indices, the axis `k` long."""
    x, axis, k = _top(node, inputs)
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return [TensorType(x.dtype, shape), TensorType("int64", shape)]


def lower_top(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One `top` step."""
    x, axis, k = _top(node, inputs)
    values, indices = optional(outputs, 0), optional(outputs, 1)
    if values is None or indices is None:
        raise NotCompiled("one of the two outputs is absent")
    inner = math.prod(x.shape[axis + 1 :])
    lines = math.prod(x.shape[:axis]) * inner
    statics = {"dtype": x.dtype, "largest": bool(node.attribute("largest", 1))}
    return [Step("top", statics, (x, values, indices), (x.shape[axis], inner, k), lines, CALL_NS + 3 * ELEMENT_NS * x.type.count, (1, 2))]


OPERATORS = {
    ("", "CumSum"): Operator(infer_cumulative, lower_cumulative),
    ("", "CumProd"): Operator(infer_cumulative, lower_cumulative),
    ("", "TopK"): Operator(infer_top, lower_top),
}
