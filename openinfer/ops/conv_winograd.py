"""3×3 convolution by Winograd's minimal filtering: when it pays, its weights, its step. See `kernels.cpu.conv_winograd`."""

from __future__ import annotations

import dataclasses

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops._base import Alias, Packed, Scratch, Step
from openinfer.ops.conv_geometry import CALL_NS, FLOPS_PER_NS, Layer, Tile, step_cost, tiles

PRODUCTS = 16
CACHE_SHARE = 0.4  # of the second cache, for the transformed patches of a band
LEAST_CHANNELS = 16
TRANSFORM = 64  # instructions for a vector of patches, in or out
G = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the patches of an image are cut: `down` × `across` of them, `band` rows at a time."""

    tile: Tile
    down: int
    across: int
    band: int


def plan(layer: Layer) -> Plan | None:
    """The cut and its cost, `None` for layers that this method does not fit."""
    g, machine = layer.g, layer.target.machine
    fits = g.kernel == (3, 3) and g.strides == (1, 1) and g.dilations == (1, 1) and g.groups == 1 and layer.x.dtype == "float32"
    if not fits or min(g.channels, g.filters) < LEAST_CHANNELS or layer.target.engine.convolution == "direct":
        return None
    down, across = (-(-d // 2) for d in g.output)
    room = int(CACHE_SHARE * machine.l2_bytes) // (PRODUCTS * g.channels * 4)
    band = max(1, min(down, max(room, 3 * layer.lanes) // across))
    band = -(-down // -(-down // band))
    bands = -(-down // band)

    def cost(rows: int, vectors: int) -> float:
        chunks, blocks = -(-band * across // (vectors * layer.lanes)), -(-g.filters // rows)
        product = PRODUCTS * (g.channels * step_cost(rows, vectors, machine.vector_registers) + rows * vectors + 10)
        into = g.channels * band * -(-across // layer.lanes) * TRANSFORM * 1.5
        return bands * (blocks * chunks * (product + rows * vectors * TRANSFORM * 1.5) + into)

    return Plan(tiles(layer, cost, 28), down, across, band)


def lower(layer: Layer, cut: Plan) -> list[Step | Alias]:
    """One `conv_winograd` step."""
    g, dtype, rows = layer.g, layer.y.dtype, cut.tile.rows
    item, width = np.dtype(dtype).itemsize, cut.tile.vectors * layer.lanes
    blocks, bands, threads = -(-g.filters // rows), -(-cut.down // cut.band), layer.target.engine.threads
    # A whole number of vectors beyond the last patch, and never a multiple of a page, which would crowd one set of the cache.
    pitch = -(-cut.band * cut.across // width) * width + layer.lanes
    shares = 1 if bands >= threads else min(threads, blocks)

    def weights() -> Array:
        """[filters, channels, 3, 3] → U as [blocks, 16, channels, rows], computed in float64."""
        u = np.einsum("ai,fcij,bj->abcf", G, layer.weight.astype(np.float64), G).reshape(PRODUCTS, g.channels, g.filters)
        padded = np.zeros((PRODUCTS, g.channels, blocks * rows))
        padded[..., : g.filters] = u
        return np.ascontiguousarray(padded.reshape(PRODUCTS, g.channels, blocks, rows).transpose(2, 0, 1, 3)).astype(dtype)

    statics = layer.statics(
        channels=g.channels, rows=rows, vectors=cut.tile.vectors, across=cut.across, band=cut.band, pitch=pitch, size=g.size
    )
    split = max(4 * ((cut.band + 1) * (cut.across + 1) + layer.lanes) + layer.lanes, 4 * width)
    operands = (
        layer.x,
        Packed(f"{layer.node.outputs[0]}:{rows}:winograd", weights),
        Packed(f"{layer.node.outputs[0]}:bias", lambda: np.ascontiguousarray(layer.shifts)),
        Scratch("split", split * item, per_thread=True),
        Scratch("patches", PRODUCTS * g.channels * pitch * item, per_thread=True),
        Scratch("products", PRODUCTS * rows * width * item, per_thread=True),
        layer.y,
    )
    sizes = (*g.before, g.filters, cut.down, *g.output, shares)
    nanoseconds = g.batch * cut.tile.cost * layer.lanes * 2 / FLOPS_PER_NS[dtype]
    return [Step("conv_winograd", statics, operands, sizes, g.batch * bands * shares, CALL_NS + nanoseconds, (3, 4, 5, 6))]
