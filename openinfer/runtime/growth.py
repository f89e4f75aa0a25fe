"""How large the outputs of operators become whose size is a number in their inputs: asked before the fallback runs one.

Compiled nodes need no such guess: their shapes are known when they are lowered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import MemoryBudgetError
from openinfer.ir.graph import Node

# The fallback visits elements one by one in Python; more than these take it hours.
MOST_ELEMENTS = 1 << 28


def check_growth(node: Node, feeds: Mapping[str, Any]) -> None:
    """`MemoryBudgetError` where the node would make a tensor beyond reason."""
    size = _SIZES.get(node.op) if not node.domain else None
    if size is None:
        return
    try:
        elements = size(node, [feeds.get(name) for name in node.inputs])
    except (TypeError, ValueError, IndexError, ArithmeticError, AttributeError):
        return  # malformed inputs: the operator itself says what is wrong
    if elements > MOST_ELEMENTS:
        raise MemoryBudgetError(
            f"operator {node.op} ({node.outputs[0]!r}) asks for {elements:.3g} elements on the fallback; allowed: {MOST_ELEMENTS}"
        )


def _product(values: Any) -> int:
    return math.prod(abs(int(value)) for value in np.asarray(values).reshape(-1))


def _expanded(node: Node, inputs: Sequence[Any]) -> int:
    shape = [int(value) for value in np.asarray(inputs[1]).reshape(-1)]
    own = [1] * (len(shape) - inputs[0].ndim) + list(inputs[0].shape)
    return math.prod(max(a, b) for a, b in zip(own[-len(shape) :], shape, strict=True)) if shape else 1


def _padded(node: Node, inputs: Sequence[Any]) -> int:
    pads = [int(v) for v in (np.asarray(inputs[1]).reshape(-1) if len(inputs) > 1 else node.attribute("pads", node.attribute("paddings")))]
    half = len(pads) // 2
    axes = [int(v) for v in inputs[3].reshape(-1)] if len(inputs) > 3 and inputs[3] is not None else range(half)
    sizes = list(inputs[0].shape)
    for axis, before, after in zip(axes, pads[:half], pads[half:], strict=True):
        sizes[axis] += before + after
    return math.prod(max(size, 0) for size in sizes)


def _resized(node: Node, inputs: Sequence[Any]) -> int:
    sizes = inputs[3] if len(inputs) > 3 else None
    axes = node.attribute("axes") or range(inputs[0].ndim)
    if sizes is not None and sizes.size:
        found = list(inputs[0].shape)
        for axis, size in zip(axes, sizes.reshape(-1).tolist(), strict=True):
            found[axis] = size
        return math.prod(found)
    scales = inputs[2] if len(inputs) > 2 else (inputs[1] if len(inputs) > 1 else np.asarray(node.attribute("scales")))
    return int(inputs[0].size * math.prod(float(scale) for scale in np.asarray(scales).reshape(-1)))


def _range(node: Node, inputs: Sequence[Any]) -> int:
    start, limit, delta = (float(np.asarray(value).reshape(())) for value in inputs)
    return int(abs((limit - start) / delta))


_SIZES: dict[str, Callable[[Node, Sequence[Any]], int]] = {
    "ConstantOfShape": lambda node, inputs: _product(inputs[0]),
    "Expand": _expanded,
    "Tile": lambda node, inputs: inputs[0].size * _product(inputs[1]),
    "Pad": _padded,
    "Resize": _resized,
    "Upsample": _resized,
    "Range": _range,
    "OneHot": lambda node, inputs: inputs[0].size * _product(inputs[1]),
}
