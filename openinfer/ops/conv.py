"""Convolution over one or two spatial dimensions, in the layout of ONNX (channels first).

The input is copied into a zero-padded plane per channel, split into phases where the stride is larger than one:

    pixel (r, q) of the padded input → plane[r % sh, q % sw, r // sh, q // sw]

Output (y, x) then reads, for tap (ky, kx), the flat position y · wq + x plus an offset that depends on the tap alone. So the convolution
is a matrix product with contiguous vectors of pixels; the columns x ≥ output width are computed and not stored.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operator, Packed, Scratch, Step, Target, Value, float_only, known, optional, required

FUSIBLE_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")
FLOPS_PER_NS = {"float32": 70.0, "float64": 35.0}
CALL_NS = 30.0
LATENCY = 8  # independent sums that keep the multipliers busy


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A convolution in two spatial dimensions; a one-dimensional one has height 1."""

    batch: int
    channels: int
    filters: int
    groups: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    output: tuple[int, int]
    plane: tuple[int, int]

    @property
    def plane_elements(self) -> int:
        """Elements of one channel's padded plane, all phases."""
        return math.prod(self.strides) * math.prod(self.plane)

    def offsets(self) -> Array:
        """[channels of a group · taps] int64: flat offset of each tap, in the order of the weights."""
        rows, columns = (np.arange(k) * d for k, d in zip(self.kernel, self.dilations, strict=True))
        (sh, sw), (hq, wq) = self.strides, self.plane
        phase = ((rows % sh)[:, None] * sw + (columns % sw)[None, :]) * (hq * wq)
        taps = (phase + (rows // sh)[:, None] * wq + (columns // sw)[None, :]).reshape(-1)
        channels = np.arange(self.channels // self.groups) * self.plane_elements
        return (channels[:, None] + taps[None, :]).reshape(-1).astype(np.int64)


def geometry(node: Node, x: Value, weight: Value) -> Geometry:
    """The convolution's sizes; `NotCompiled` for three spatial dimensions."""
    spatial = len(x.shape) - 2
    if spatial not in (1, 2) or len(weight.shape) != len(x.shape):
        raise NotCompiled(f"{spatial} spatial dimensions; compiled for 1 and 2")
    groups = node.attribute("group", 1)
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise NotCompiled(f"{x.shape[1]} channels do not fit weights {weight.shape} in {groups} groups")
    kernel, strides = weight.shape[2:], tuple(node.attribute("strides", (1,) * spatial))
    dilations = tuple(node.attribute("dilations", (1,) * spatial))
    before, after = padding(node, x.shape[2:], kernel, strides, dilations)
    output = tuple(
        (d + low + high - (k - 1) * dilation - 1) // s + 1
        for d, low, high, k, dilation, s in zip(x.shape[2:], before, after, kernel, dilations, strides, strict=True)
    )
    if any(d <= 0 for d in output):
        raise NotCompiled(f"an empty output {output}")
    plane = tuple(-(-(d + low + high) // s) for d, low, high, s in zip(x.shape[2:], before, after, strides, strict=True))

    def two(values: Sequence[int], missing: int) -> tuple[int, int]:
        return (values[0], values[1]) if spatial == 2 else (missing, values[0])

    return Geometry(
        x.shape[0],
        x.shape[1],
        weight.shape[0],
        groups,
        two(x.shape[2:], 1),
        two(kernel, 1),
        two(strides, 1),
        two(dilations, 1),
        two(before, 0),
        two(output, 1),
        two(plane, 1),
    )


def padding(
    node: Node, size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Elements added before and after each spatial dimension, from `pads` or `auto_pad`."""
    spatial = len(size)
    mode = node.attribute("auto_pad", "NOTSET")
    if mode == "VALID":
        return (0,) * spatial, (0,) * spatial
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (-(-d // s) - 1) * s + (k - 1) * dilation + 1 - d)
            for d, k, s, dilation in zip(size, kernel, strides, dilations, strict=True)
        ]
        small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        return (small, large) if mode == "SAME_UPPER" else (large, small)
    pads = tuple(node.attribute("pads", (0,) * 2 * spatial))
    if any(p < 0 for p in pads):
        raise NotCompiled("negative pads")
    return pads[:spatial], pads[spatial:]


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """[N, C, spatial…] → [N, filters, spatial…]."""
    x, weight = required(inputs, 0), required(inputs, 1)
    found = geometry(node, x, weight)
    output = found.output if len(x.shape) == 4 else found.output[1:]
    return [TensorType(float_only(x), (x.shape[0], weight.shape[0], *output))]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """`phase_copy`, then `conv`; a 1×1 convolution without stride and pads reads the input in place."""
    x, y = required(inputs, 0), required(outputs, 0)
    weight, bias = constant(required(inputs, 1)), optional(inputs, 2)
    dtype = float_only(x)
    g = geometry(node, x, required(inputs, 1))
    shifts = np.zeros(g.filters, dtype) if bias is None else constant(bias)
    in_place = g.plane == g.size == g.output and g.kernel == (1, 1)
    if in_place:
        pixels = math.prod(g.size)
        g = dataclasses.replace(g, size=(1, pixels), output=(1, pixels), plane=(1, pixels))
    rows, vectors = tile_shape(g.filters // g.groups, g.output[0] * g.plane[1], dtype, target)
    in_place = in_place and g.plane[1] >= vectors * target.machine.lanes(dtype)
    steps: list[Step | Alias] = []
    plane: Value | Scratch = x
    if not in_place:
        copied = phase_copy(x, g, vectors * target.machine.lanes(dtype))
        plane = scratch_of(copied)
        steps.append(copied)
    window = Window(g.output, 0, g.output[1], 1)
    steps.append(product(node, plane, y, g, weight, shifts, g.offsets(), window, (rows, vectors), target))
    return steps


@dataclasses.dataclass(frozen=True)
class Window:
    """Where results go within one filter's output: (r, q) at start + r · row_step + q · column_step, for `size` rows and columns."""

    size: tuple[int, int]
    start: int
    row_step: int
    column_step: int


def phase_copy(x: Value, g: Geometry, width: int) -> Step:
    """The copy of `x` into padded planes; readers may look `width` elements and one row beyond the last plane."""
    image = g.channels * g.plane_elements
    plane = Scratch("plane", (g.batch * image + width + g.plane[1]) * np.dtype(x.dtype).itemsize)
    sizes = (*g.size, *g.before, *g.strides, *g.plane)
    return Step("phase_copy", {"dtype": x.dtype}, (x, plane), sizes, g.batch * g.channels, CALL_NS + g.batch * image * 0.3, (1,))


def scratch_of(step: Step) -> Scratch:
    """The plane that a `phase_copy` fills."""
    plane = step.operands[1]
    assert isinstance(plane, Scratch)
    return plane


def product(
    node: Node,
    plane: Value | Scratch,
    y: Value,
    g: Geometry,
    weight: Array,
    shifts: Array,
    offsets: Array,
    window: Window,
    tile: tuple[int, int],
    target: Target,
    part: str = "",
) -> Step:
    """One `conv` step: a block is a chunk of pixels of some filters of one group of one image.

    `weight` is [filters, depth], `offsets` [depth]; `part` tells apart several products of one node.
    """
    dtype, (rows, vectors) = y.dtype, tile
    per_group, depth = g.filters // g.groups, len(offsets)
    width = vectors * target.machine.lanes(dtype)
    pixels = window.size[0] * g.plane[1]
    filter_blocks, chunks = -(-per_group // rows), -(-pixels // width)
    image = g.channels * g.plane_elements
    key = f"{node.outputs[0]}:{rows}:{part}"

    def pack(values: Array) -> Array:
        """[filters, …] → [groups, blocks, depth, rows], zero beyond the last filter."""
        padded = np.zeros((g.groups, filter_blocks * rows, values[0].size), dtype)
        padded[:, :per_group] = values.reshape(g.groups, per_group, -1)
        return np.ascontiguousarray(padded.reshape(g.groups, filter_blocks, rows, -1).transpose(0, 1, 3, 2))

    low, high = bounds(node)
    statics = {
        "dtype": dtype,
        "depth": depth,
        "rows": rows,
        "vectors": vectors,
        "column_step": window.column_step,
        "activation": node.attribute("activation"),
        "low_bound": low,
        "high_bound": high,
    }
    operands = (
        plane,
        Packed(f"{node.outputs[0]}:{g.size}:{part}:offsets", lambda: offsets.astype(np.int64)),
        Packed(f"{key}:weights", lambda: pack(weight)),
        Packed(f"{key}:bias", lambda: pack(shifts)),
        y,
    )
    filter_size = math.prod(y.shape[2:])
    sizes = (image, image // g.groups, g.groups, per_group, filter_blocks, chunks, pixels, g.plane[1])
    places = (*window.size, filter_size, window.start, window.row_step)
    blocks, flops = g.batch * g.groups * filter_blocks * chunks, 2.0 * g.batch * g.filters * depth * pixels
    return Step("conv", statics, operands, (*sizes, *places), blocks, CALL_NS + flops / FLOPS_PER_NS[dtype], (4,))


def tile_shape(filters: int, pixels: int, dtype: str, target: Target) -> tuple[int, int]:
    """Filters and vectors of pixels of the register tile: the cheapest that the register file holds, by a count of instructions.

    `engine.tile_rows` and `engine.tile_vectors` fix either.
    """
    registers, lanes = target.machine.vector_registers, target.machine.lanes(dtype)
    rows = (target.engine.tile_rows,) if target.engine.tile_rows else range(1, 15)
    vectors = (target.engine.tile_vectors,) if target.engine.tile_vectors else range(1, 5)
    fixed = bool(target.engine.tile_rows and target.engine.tile_vectors)

    def cost(tile: tuple[int, int]) -> tuple[float, int]:
        r, v = tile
        spills = max(0, r * v + v + 1 - registers)
        step = max(r * v, 0.8 * (r + v) + 2, LATENCY) + 4 * spills
        return -(-filters // r) * -(-pixels // (v * lanes)) * step, -r * v

    candidates = [(r, v) for r in rows for v in vectors if fixed or r * v + v + 1 <= registers or (r == 1 or v == 1)]
    return min(candidates, key=cost)


def bounds(node: Node) -> tuple[float, float]:
    """The activation's numbers, as the kernels take them."""
    activation = node.attribute("activation")
    if activation == "LeakyRelu":
        return float(node.attribute("leak", 0.01)), 0.0
    if activation == "Clip":
        return float(node.attribute("min", float("-inf"))), float(node.attribute("max", float("inf")))
    return 0.0, 0.0


def constant(value: Value) -> Array:
    data: Array = known(value, f"{value.name!r}")
    if not value.constant:
        raise NotCompiled(f"{value.name!r} follows from the input's shape")
    return data


OPERATORS = {("", "Conv"): Operator(infer, lower)}
