"""Convolution over one or two spatial dimensions, in the layout of ONNX (channels first): the choice among its kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Node, TensorType
from openinfer.ops import conv_depthwise, conv_filters, conv_pixels, conv_winograd
from openinfer.ops._base import Alias, Operator, Step, Target, Value, float_only, optional, required
from openinfer.ops.conv_geometry import Layer, check_operands, constant, geometry

FUSIBLE_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """[N, C, spatial…] → [N, filters, spatial…]."""
    x, weight = required(inputs, 0), required(inputs, 1)
    found = geometry(node, x, weight)
    output = found.output if len(x.shape) == 4 else found.output[1:]
    float_only(x)
    dtype = check_operands(x, weight, optional(inputs, 2), weight.shape[0])
    return [TensorType(dtype, (x.shape[0], weight.shape[0], *output))]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """The steps of the kernel that needs the fewest instructions for these sizes; the choice never looks at the batch."""
    x, y = required(inputs, 0), required(outputs, 0)
    weight, bias = constant(required(inputs, 1)), optional(inputs, 2)
    g = geometry(node, x, required(inputs, 1))
    shifts = np.zeros(g.filters, weight.dtype) if bias is None else constant(bias)
    layer = Layer(node, x, y, g, weight, shifts, target)
    depthwise = conv_depthwise.lower(layer)
    if depthwise is not None:
        return depthwise
    pixels, filters = conv_pixels.tile_shape(layer, g.output[0] * g.plane[1]), conv_filters.tile_shape(layer)
    winograd = conv_winograd.plan(layer)
    if winograd is not None and winograd.tile.cost < min(pixels.cost, filters.cost):
        return conv_winograd.lower(layer, winograd)
    return conv_filters.lower(layer, filters) if filters.cost < pixels.cost else conv_pixels.lower(layer, pixels)


OPERATORS = {("", "Conv"): Operator(infer, lower)}
