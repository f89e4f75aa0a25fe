"""Softmax, LogSoftmax and Hardmax of opset 13 and later, and of earlier opsets, which flatten the input to a matrix at `axis`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from openinfer.ir.graph import Node, TensorType
from openinfer.ops._base import Alias, Operator, Step, Target, Value, axis_of, float_only, required

ELEMENT_NS = 4.0


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """The input's type."""
    x = required(inputs, 0)
    axis(node, x)
    return [x.type]


def axis(node: Node, x: Value) -> int:
    """The axis of the lines, counted from the front. Before opset 13 the matrix may also begin behind the last axis."""
    rank = len(x.shape)
    given = node.attribute("axis", 1 if node.version < 13 else -1)
    return rank if node.version < 13 and given == rank else axis_of(given, rank)


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One step; a block is one line."""
    x, y = required(inputs, 0), required(outputs, 0)
    rank = len(x.shape)
    flatten = node.version < 13
    at = axis(node, x)
    size = math.prod(x.shape[at:]) if flatten else math.prod(x.shape[at : at + 1])
    inner = 1 if flatten else math.prod(x.shape[at + 1 :])
    lines = math.prod(x.shape[:at]) * inner if size else 0
    statics: dict[str, Hashable] = {"dtype": float_only(x)}
    if node.op == "Softmax":
        # By the axes, not by `inner`: a batch of one along a later axis keeps the kernel, and so the bits, of a larger one.
        statics["contiguous"] = flatten or at == rank - 1
    return [Step(node.op.lower(), statics, (x, y), (size, inner), lines, 5 + ELEMENT_NS * x.type.count, (1,))]


OPERATORS = {("", name): Operator(infer, lower) for name in ("Softmax", "LogSoftmax", "Hardmax")}
