"""LayerNormalization, RMSNormalization, InstanceNormalization and GroupNormalization: one kernel over lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operand, Operator, Packed, Step, Target, Value, axis_of, float_only, optional, required

ELEMENT_NS, CALL_NS = 0.5, 15.0

Inputs = Sequence[Value | None]


def infer_lines(node: Node, inputs: Inputs) -> list[TensorType]:
    """Y as X; Mean and InvStdDev with the normalised axes 1."""
    x = required(inputs, 0)
    axis = axis_of(node.attribute("axis", -1), len(x.shape))
    if len(node.outputs) > 1 and (x.dtype != "float32" or node.attribute("stash_type", 1) != 1):
        raise NotCompiled(f"statistics of {x.dtype} with stash_type {node.attribute('stash_type', 1)}; compiled for float32")
    statistics = TensorType(float_only(x), (*x.shape[:axis], *[1] * (len(x.shape) - axis)))
    return [x.type, statistics, statistics] if node.op == "LayerNormalization" else [x.type]


def lower_lines(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One step; scale and bias hold a number per element of a line."""
    x = required(inputs, 0)
    axis = axis_of(node.attribute("axis", -1), len(x.shape))
    shape = x.shape[axis:]
    size = math.prod(shape)
    scale = _spread(required(inputs, 1), x, shape, node, "scale")
    given = optional(inputs, 2)
    zeros = Packed(f"zeros {size} {x.dtype}", lambda: np.zeros(size, x.dtype))
    bias = zeros if given is None else _spread(given, x, shape, node, "bias")
    return [_step(node, x, scale, bias, outputs, size, 1, 1, math.prod(x.shape[:axis]), elementwise=True)]


def infer_channels(node: Node, inputs: Inputs) -> list[TensorType]:
    """[N, C, spatial…] → the same."""
    x = required(inputs, 0)
    float_only(x)
    if len(x.shape) < 3:
        raise NotCompiled(f"rank {len(x.shape)}; compiled from 3")
    return [x.type]


def lower_channels(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One step; a line is a group of channels of one image, scale and bias hold a number per channel or, in opset 18, per group."""
    x, scale, bias = (required(inputs, position) for position in range(3))
    batch, channels = x.shape[:2]
    groups = channels if node.op == "InstanceNormalization" else int(node.attribute("num_groups"))
    if channels % groups:
        raise NotCompiled(f"{channels} channels in {groups} groups")
    segments = channels // groups
    if node.op == "GroupNormalization" and node.version < 21:
        segments = 1
    if scale.shape != (groups * segments,) or bias.shape != scale.shape or not scale.dtype == bias.dtype == x.dtype:
        raise NotCompiled(f"scale {scale.dtype} {scale.shape} and bias {bias.dtype} {bias.shape}")
    size = math.prod(x.shape[1:]) // groups
    return [_step(node, x, scale, bias, outputs, size, segments, groups, batch * groups, elementwise=False)]


def _step(
    node: Node,
    x: Value,
    scale: Operand,
    bias: Operand,
    outputs: Inputs,
    size: int,
    segments: int,
    lines: int,
    blocks: int,
    *,
    elementwise: bool,
) -> Step:
    y, mean, inverse = required(outputs, 0), optional(outputs, 1), optional(outputs, 2)
    if (mean is None) != (inverse is None):
        raise NotCompiled("one of the two statistics without the other")
    statics = {
        "dtype": x.dtype,
        "epsilon": float(node.attribute("epsilon", 1e-5)),
        "centred": node.op != "RMSNormalization",
        "elementwise": elementwise,
        "statistics": mean is not None,
    }
    operands = (x, scale, bias, y, mean or y, inverse or y)
    writes = (3, 4, 5) if mean is not None else (3,)
    return Step("normalize", statics, operands, (size, segments, lines), blocks if size else 0, CALL_NS + ELEMENT_NS * x.type.count, writes)


def _spread(value: Value, x: Value, shape: tuple[int, ...], node: Node, what: str) -> Operand:
    """One number per element of a line: as given, or a constant repeated."""
    if value.dtype != x.dtype:
        raise NotCompiled(f"{what} of {value.dtype} for {x.dtype}")
    own = value.shape
    while len(own) > len(shape) and own[0] == 1:
        own = own[1:]
    if own == shape:
        return value
    data = value.data
    fits = len(own) <= len(shape) and all(d in (1, size) for d, size in zip(reversed(own), reversed(shape), strict=False))
    if data is None or not value.constant or not fits:
        raise NotCompiled(f"{what} of shape {value.shape} for lines of shape {shape}")
    return Packed(f"{node.outputs[0]}:{what}:{shape}", lambda: np.ascontiguousarray(np.broadcast_to(data.reshape(own), shape)))


OPERATORS = {
    ("", "LayerNormalization"): Operator(infer_lines, lower_lines),
    ("", "RMSNormalization"): Operator(infer_lines, lower_lines),
    ("", "InstanceNormalization"): Operator(infer_channels, lower_channels),
    ("", "GroupNormalization"): Operator(infer_channels, lower_channels),
}
