"""Convolution with filters in the vector lanes; see `kernels.cpu.conv_filters`. Reads an unsplit padded plane, or the input in place."""

from __future__ import annotations

import dataclasses

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops._base import Alias, Packed, Scratch, Step, Value
from openinfer.ops.conv_geometry import (
    CALL_NS,
    FLOPS_PER_NS,
    Geometry,
    Layer,
    Tile,
    chain_length,
    chains,
    phase_copy,
    scratch_of,
    step_cost,
    tiles,
)

MOST_PIXELS = 28


def tile_shape(layer: Layer) -> Tile:
    """The cheapest tile of pixels × vectors of filters; several rows of pixels only where the tile takes whole rows."""
    g, registers = layer.g, layer.target.machine.vector_registers
    oh, ow = g.output

    def shape(pixels: int) -> tuple[int, int]:
        return (min(oh, pixels // ow), ow) if pixels >= ow else (1, pixels)

    def cost(pixels: int, vectors: int) -> float:
        rows, columns = shape(pixels)
        count = g.groups * -(-g.filters // g.groups // (vectors * layer.lanes)) * -(-oh // rows) * -(-ow // columns)
        squares = vectors * -(-rows * columns // layer.lanes)
        return count * (layer.depth * step_cost(rows * columns, vectors, registers) + squares * 8 * layer.lanes + 40)

    best = tiles(layer, cost, MOST_PIXELS)
    rows, columns = shape(best.rows)
    return dataclasses.replace(best, rows=rows, columns=columns)


def lower(layer: Layer, tile: Tile) -> list[Step | Alias]:
    """`phase_copy` where there are pads, then `conv_filters`."""
    g, dtype = layer.g, layer.y.dtype
    padded = tuple(
        (d - 1) * s + (k - 1) * dilation + 1 for d, s, k, dilation in zip(g.output, g.strides, g.kernel, g.dilations, strict=True)
    )
    steps: list[Step | Alias] = []
    plane: Value | Scratch = layer.x
    in_place = g.before == (0, 0) and all(p <= d for p, d in zip(padded, g.size, strict=True))
    whole = g.size if in_place else (padded[0], padded[1])
    flat = dataclasses.replace(g, strides=(1, 1), plane=whole)
    if not in_place:
        copied = phase_copy(layer.x, flat, 0)
        plane = scratch_of(copied)
        steps.append(copied)
    return [*steps, _product(layer, plane, flat, tile, dtype)]


def _product(layer: Layer, plane: Value | Scratch, flat: Geometry, tile: Tile, dtype: str) -> Step:
    g, width = layer.g, tile.vectors * layer.lanes
    per_group = g.filters // g.groups
    filter_blocks, image = -(-per_group // width), g.channels * flat.plane_elements
    name = layer.node.outputs[0]

    def pack(values: Array) -> Array:
        """[filters, …] → [groups, blocks, depth, width], zero beyond the last filter."""
        padded = np.zeros((g.groups, filter_blocks * width, values[0].size), dtype)
        padded[:, :per_group] = values.reshape(g.groups, per_group, -1)
        return np.ascontiguousarray(padded.reshape(g.groups, filter_blocks, width, -1).transpose(0, 1, 3, 2))

    statics = layer.statics(
        chains=chains(layer.depth),
        rows=tile.rows,
        columns=tile.columns,
        vectors=tile.vectors,
        row_distance=g.strides[0] * flat.plane[1],
        column_distance=g.strides[1],
    )
    operands = (
        plane,
        Packed(f"{name}:{g.size}:whole:offsets", flat.offsets),
        Packed(f"{name}:{width}:filters:weights", lambda: pack(layer.weight)),
        Packed(f"{name}:{width}:filters:bias", lambda: pack(layer.shifts)),
        layer.y,
    )
    sizes = (layer.depth, chain_length(layer.depth), image, image // g.groups, g.groups, per_group, filter_blocks, *g.output)
    blocks = g.batch * g.groups * filter_blocks * -(-g.output[0] // tile.rows) * -(-g.output[1] // tile.columns)
    flops = 2.0 * blocks * tile.rows * tile.columns * width * layer.depth
    return Step("conv_filters", statics, operands, sizes, blocks, CALL_NS + flops / FLOPS_PER_NS[dtype], (4,))
