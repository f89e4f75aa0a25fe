"""Operators whose results follow from known values. Lowering folds small ones; what is large and simple is filled in at run time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import ITEM_BYTES, Array, Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operator, Packed, Step, Target, Value, known, required
from openinfer.ops.movement import CALL_NS, FILL_BLOCK

Inputs = Sequence[Value | None]


def _infer(node: Node, inputs: Inputs) -> list[TensorType]:
    raise NotCompiled("its inputs are computed at run time")


def _lower(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    raise NotCompiled("its inputs are computed at run time")


def _infer_constant_of_shape(node: Node, inputs: Inputs) -> list[TensorType]:
    shape = tuple(int(d) for d in np.asarray(known(required(inputs, 0), "the shape")).reshape(-1))
    return [TensorType(_content(node).dtype.name, shape)]


def _lower_constant_of_shape(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One `fill` step: a result too large to be folded."""
    y, content = required(outputs, 0), _content(node)
    if y.dtype not in ITEM_BYTES:
        raise NotCompiled(f"dtype {y.dtype}")
    count = y.type.count
    statics = {"item_bytes": ITEM_BYTES[y.dtype], "block": FILL_BLOCK}
    value = Packed(f"number {content.tobytes().hex()} {y.dtype}", lambda: content)
    return [Step("fill", statics, (value, y), (count,), -(-count // FILL_BLOCK), CALL_NS + 0.1 * count, (1,))]


def _content(node: Node) -> Array:
    content: Array = np.asarray(node.attribute("value", np.zeros(1, np.float32))).reshape(1)
    return content


OPERATORS = {
    **{("", name): Operator(_infer, _lower) for name in ("Range", "EyeLike")},
    ("", "ConstantOfShape"): Operator(_infer_constant_of_shape, _lower_constant_of_shape),
}
