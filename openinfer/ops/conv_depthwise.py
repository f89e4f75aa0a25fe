"""Depthwise convolution, one input channel a group: see `kernels.cpu.conv_depthwise`."""

from __future__ import annotations

import math

import numpy as np

from openinfer.ops._base import Alias, Packed, Scratch, Step
from openinfer.ops.conv_geometry import CALL_NS, Layer

MOST_TAPS = 64  # all weights and the lines under a tile are unrolled
SUMS = 8
MOST_TOGETHER = 8
TILE_OVERHEAD = 10


def lower(layer: Layer) -> list[Step | Alias] | None:
    """One `conv_depthwise` step; `None` where the layer is another kind, or its image smaller than the narrowest vector."""
    g, dtype = layer.g, layer.y.dtype
    taps = math.prod(g.kernel)
    if g.groups != g.channels or g.groups == 1 or taps > MOST_TAPS:
        return None
    item, registers = np.dtype(dtype).itemsize, layer.target.machine.vector_registers
    oh, ow = g.output
    copied = g.plane != g.size or g.strides != (1, 1) or g.before != (0, 0)
    flat = ow < layer.lanes
    down, line = (1, (oh - 1) * g.plane[1] + ow) if flat else (oh, ow)
    lanes = layer.lanes
    while lanes > line:
        lanes //= 2
    if lanes < 2:
        return None
    engine = layer.target.engine
    shapes = [
        (r, v)
        for r in ([min(engine.tile_rows, down)] if engine.tile_rows else range(1, min(down, 6) + 1))
        for v in ([engine.tile_vectors] if engine.tile_vectors else range(1, 5))
        if v * lanes <= line and (r * v <= max(SUMS, registers - taps - 2) or engine.tile_rows or engine.tile_vectors)
    ] or [(1, 1)]

    def cost(shape: tuple[int, int]) -> float:
        r, v = shape
        loads = ((r - 1) * g.strides[0] + g.kernel[0]) * g.kernel[1] * v + taps
        return -(-down // r) * -(-line // (v * lanes)) * (max(r * v * taps, loads, 4 * taps) + TILE_OVERHEAD)

    rows, vectors = min(shapes, key=cost)
    one = g.plane_elements + (1 + math.prod(g.strides)) * layer.lanes + (line + layer.lanes if flat else 0)
    together = max(1, min(MOST_TOGETHER, layer.target.machine.l1_bytes // 2 // (one * item)))
    statics = layer.statics(
        kernel=g.kernel,
        strides=g.strides,
        dilations=g.dilations,
        size=g.size,
        output=g.output,
        plane=g.plane,
        rows=rows,
        vectors=vectors,
        lanes=lanes,
        together=together,
        copied=copied,
        flat=flat,
    )
    name, multiplier = layer.node.outputs[0], g.filters // g.groups
    operands = (
        layer.x,
        Packed(f"{name}:taps", lambda: np.ascontiguousarray(layer.weight.reshape(g.filters, taps))),
        Packed(f"{name}:bias", lambda: np.ascontiguousarray(layer.shifts)),
        Scratch("plane", together * one * item, per_thread=True),
        layer.y,
    )
    sizes = (*g.before, multiplier, g.channels)
    blocks = g.batch * g.channels
    nanoseconds = blocks * (g.plane_elements * 0.15 + multiplier * oh * ow * taps * 0.03)
    return [Step("conv_depthwise", statics, operands, sizes, blocks, CALL_NS + nanoseconds, (3, 4))]
