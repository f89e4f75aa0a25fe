"""Convolution with pixels in the vector lanes: a matrix product over flat padded planes, whose columns beyond the output's width are
computed and not stored.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops._base import Alias, Packed, Scratch, Step, Value
from openinfer.ops.conv_geometry import CALL_NS, FLOPS_PER_NS, Layer, Tile, chain_length, chains, phase_copy, scratch_of, step_cost, tiles


@dataclasses.dataclass(frozen=True)
class Window:
    """Where results go within one filter's output: (r, q) at start + r · row_step + q · column_step, for `size` rows and columns."""

    size: tuple[int, int]
    start: int
    row_step: int
    column_step: int


def tile_shape(layer: Layer, pixels: int) -> Tile:
    """The cheapest tile of filters × vectors of pixels, for flat `pixels` of an image."""
    filters, registers = layer.g.filters // layer.g.groups, layer.target.machine.vector_registers

    def cost(rows: int, vectors: int) -> float:
        count = layer.g.groups * -(-filters // rows) * -(-pixels // (vectors * layer.lanes))
        return count * (layer.depth * step_cost(rows, vectors, registers) + 2 * rows * vectors + 40)

    return tiles(layer, cost)


def lower(layer: Layer, tile: Tile) -> list[Step | Alias]:
    """`phase_copy`, then `conv`; a 1×1 convolution without stride and pads reads the input in place."""
    g, width = layer.g, tile.vectors * layer.lanes
    if g.plane == g.size == g.output and g.kernel == (1, 1) and math.prod(g.size) >= width:
        pixels = math.prod(g.size)
        g = dataclasses.replace(g, size=(1, pixels), output=(1, pixels), plane=(1, pixels))
        flat = dataclasses.replace(layer, g=g)
        return [product(flat, layer.x, flat.weight, g.offsets(), Window(g.output, 0, pixels, 1), tile)]
    copied = phase_copy(layer.x, g, width)
    return [copied, product(layer, scratch_of(copied), layer.weight, g.offsets(), Window(g.output, 0, g.output[1], 1), tile)]


def product(layer: Layer, plane: Value | Scratch, weight: Array, offsets: Array, window: Window, tile: Tile, part: str = "") -> Step:
    """One `conv` step: a block is a chunk of pixels of some filters of one group of one image.

    `weight` is [filters, …depth], `offsets` [depth]; `part` tells apart several products of one node.
    """
    g, y, dtype, rows = layer.g, layer.y, layer.y.dtype, tile.rows
    per_group, depth, width = g.filters // g.groups, len(offsets), tile.vectors * layer.lanes
    pixels = window.size[0] * g.plane[1]
    filter_blocks, chunks = -(-per_group // rows), -(-pixels // width)
    image = g.channels * g.plane_elements
    name = layer.node.outputs[0]

    def pack(values: Array) -> Array:
        """[filters, …] → [groups, blocks, depth, rows], zero beyond the last filter."""
        padded = np.zeros((g.groups, filter_blocks * rows, values[0].size), dtype)
        padded[:, :per_group] = values.reshape(g.groups, per_group, -1)
        return np.ascontiguousarray(padded.reshape(g.groups, filter_blocks, rows, -1).transpose(0, 1, 3, 2))

    operands = (
        plane,
        Packed(f"{name}:{g.size}:{part}:offsets", lambda: offsets.astype(np.int64)),
        Packed(f"{name}:{rows}:{part}:weights", lambda: pack(weight)),
        Packed(f"{name}:{rows}:bias", lambda: pack(layer.shifts)),
        y,
    )
    sizes = (depth, chain_length(depth), image, image // g.groups, g.groups, per_group, filter_blocks, chunks, pixels, g.plane[1])
    places = (*window.size, math.prod(y.shape[2:]), window.start, window.row_step)
    blocks, flops = g.batch * g.groups * filter_blocks * chunks, 2.0 * g.batch * g.filters * depth * pixels
    statics = layer.statics(chains=chains(depth), rows=rows, vectors=tile.vectors, column_step=window.column_step)
    return Step("conv", statics, operands, (*sizes, *places), blocks, CALL_NS + flops / FLOPS_PER_NS[dtype], (4,))
