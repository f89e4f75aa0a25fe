"""The sizes of a convolution, and the padded planes that its kernels read.

The input is copied into a zero-padded plane per channel, split into phases where the stride is larger than one:

    pixel (r, q) of the padded input → plane[r % sh, q % sw, r // sh, q // sw]

Output (y, x) then reads, for tap (ky, kx), the flat position y · wq + x plus an offset that depends on the tap alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from openinfer.ir.graph import Array, Node
from openinfer.ops._base import NotCompiled, Scratch, Step, Target, Value, known, same_dtype

LONGEST_CHAIN = 512
CALL_NS = 30.0
FLOPS_PER_NS = {"float32": 90.0, "float64": 45.0}
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
    if not weight.type.count or tuple(node.attribute("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise NotCompiled(f"weights {weight.shape} for kernel_shape {node.attribute('kernel_shape')}")
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
    """Elements added before and after each spatial dimension, from `pads` or `auto_pad`; refuses what no window can have."""
    check_window(kernel, strides, dilations)
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


def check_window(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> None:
    """Raises `NotCompiled` for a kernel, stride or dilation below 1."""
    if min(*kernel, *strides, *dilations) < 1:
        raise NotCompiled(f"kernel {tuple(kernel)}, strides {tuple(strides)}, dilations {tuple(dilations)}; each must be at least 1")


def check_operands(x: Value, weight: Value, bias: Value | None, filters: int) -> str:
    """The dtype that a convolution's operands share. Raises `NotCompiled` where they differ, or the bias is not one number a filter."""
    dtype = same_dtype(*(value for value in (x, weight, bias) if value is not None))
    if bias is not None and bias.shape != (filters,):
        raise NotCompiled(f"a bias of shape {bias.shape} for {filters} filters")
    return dtype


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


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution with everything that its lowering reads. `weight` is [filters, channels / groups, kernel…], `shifts` [filters]."""

    node: Node
    x: Value
    y: Value
    g: Geometry
    weight: Array
    shifts: Array
    target: Target

    @property
    def depth(self) -> int:
        """Products summed into one output."""
        return math.prod(self.weight.shape[1:])

    @property
    def lanes(self) -> int:
        """Elements of one vector."""
        return self.target.machine.lanes(self.x.dtype)

    def statics(self, **more: Hashable) -> dict[str, Hashable]:
        """A kernel's constants: the dtype and the activation, and `more`."""
        low, high = bounds(self.node)
        activation = self.node.attribute("activation")
        return {"dtype": self.x.dtype, "activation": activation, "low_bound": low, "high_bound": high, **more}


def chain_length(depth: int) -> int:
    """Steps of one accumulation chain: equal parts of at most 512, which keeps the rounding error of deep reductions down."""
    parts = max(1, -(-depth // LONGEST_CHAIN))
    return -(-depth // parts)


def chains(depth: int) -> int:
    """What of a depth a kernel's code depends on: none (0), one chain (1) or several (2)."""
    return min(2, -(-depth // LONGEST_CHAIN))


@dataclasses.dataclass(frozen=True)
class Tile:
    """A register tile and what the whole layer costs with it, in instructions of an image."""

    cost: float
    rows: int
    vectors: int
    columns: int = 1


def tiles(layer: Layer, cost: Callable[[int, int], float], most: int = 14) -> Tile:
    """The cheapest tile of `rows` broadcast scalars × `vectors` vectors. `engine.tile_rows` and `engine.tile_vectors` fix either."""
    engine, registers = layer.target.engine, layer.target.machine.vector_registers
    rows = (engine.tile_rows,) if engine.tile_rows else range(1, most + 1)
    vectors = (engine.tile_vectors,) if engine.tile_vectors else range(1, 5)
    fixed = engine.tile_rows or engine.tile_vectors
    shapes = [(r, v) for r in rows for v in vectors if r * v + v + 1 <= registers or fixed]
    return min((Tile(cost(r, v), r, v) for r, v in shapes), key=lambda tile: (tile.cost, -tile.rows * tile.vectors))


def step_cost(rows: int, vectors: int, registers: int) -> float:
    """Cycles of one step of the depth: a multiplication for each pair, or the loads, or the time until a sum can be used again."""
    spilled = max(0, rows * vectors + vectors + 1 - registers)
    return max(rows * vectors, 0.6 * (rows + vectors) + 2, LATENCY) + 3 * spilled
