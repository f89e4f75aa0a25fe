"""Pooling over one or two spatial dimensions, and over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from openinfer.ir.graph import Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operator, Step, Target, Value, float_only, required
from openinfer.ops.conv_geometry import padding

ELEMENT_NS = 0.8


def _window(node: Node, x: Value) -> tuple[tuple[int, ...], ...]:
    """kernel, strides, dilations, pads before, output; two spatial dimensions each."""
    spatial = len(x.shape) - 2
    if spatial not in (1, 2):
        raise NotCompiled(f"{spatial} spatial dimensions; compiled for 1 and 2")
    kernel = tuple(node.attribute("kernel_shape"))
    strides, dilations = tuple(node.attribute("strides", (1,) * spatial)), tuple(node.attribute("dilations", (1,) * spatial))
    before, after = padding(node, x.shape[2:], kernel, strides, dilations)
    output = []
    for d, low, high, k, dilation, s in zip(x.shape[2:], before, after, kernel, dilations, strides, strict=True):
        room = d + low + high - (k - 1) * dilation - 1
        size = (-(-room // s) if node.attribute("ceil_mode", 0) else room // s) + 1
        if node.attribute("ceil_mode", 0) and (size - 1) * s >= d + low:
            size -= 1  # a window that would start in the padding behind the image
        output.append(size)
    if any(d <= 0 for d in output):
        raise NotCompiled(f"an empty output {output}")
    lead = (1,) * (2 - spatial)
    return tuple(
        (*filler, *values)
        for filler, values in (
            (lead, kernel),
            (lead, strides),
            (lead, dilations),
            ((0,) * (2 - spatial), before),
            (lead, output),
            ((0,) * (2 - spatial), after),
        )
    )


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """[N, C, spatial…] → [N, C, spatial…]."""
    x = required(inputs, 0)
    if len(node.outputs) > 1:
        raise NotCompiled("the indices of the maxima")
    output = _window(node, x)[4]
    return [TensorType(float_only(x), (*x.shape[:2], *output[4 - len(x.shape) :]))]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One `pool` step; a block is one channel of one image."""
    x, y = required(inputs, 0), required(outputs, 0)
    kernel, strides, dilations, before, output, after = _window(node, x)
    statics = {"dtype": x.dtype, "maximum": node.op == "MaxPool", "count_padding": bool(node.attribute("count_include_pad", 0))}
    size = x.shape[2:] if len(x.shape) == 4 else (1, *x.shape[2:])
    cost = 10 + ELEMENT_NS * y.type.count * math.prod(kernel)
    return [
        Step("pool", statics, (x, y), (*size, *kernel, *strides, *dilations, *before, *after, *output), math.prod(x.shape[:2]), cost, (1,))
    ]


OPERATORS = {("", name): Operator(infer, lower) for name in ("MaxPool", "AveragePool")}
