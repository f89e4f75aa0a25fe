"""Transposed convolution over one or two spatial dimensions, as ordinary convolutions: one per phase of the output.

Input i reaches output o through tap k where o + pad = stride · i + dilation · k. Outputs with the same ρ = (o + pad) mod stride, at
o + pad = stride · q + ρ, use the same taps: those with dilation · k ≡ ρ, each reading input q - (dilation · k - ρ) / stride. So a phase is
a convolution without stride over the padded input, whose results lie `stride` apart in the output.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operator, Step, Target, Value, float_only, optional, required
from openinfer.ops.conv_geometry import Geometry, Layer, check_operands, check_window, constant, phase_copy, scratch_of
from openinfer.ops.conv_pixels import Window, product, tile_shape


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase along one dimension: `taps` of the kernel, each reading input q - shift for q = first … first + count - 1; the first
    result is output `start`.
    """

    taps: tuple[int, ...]
    shifts: tuple[int, ...]
    first: int
    count: int
    start: int


def phases(size: int, stride: int, dilation: int, kernel: int, pad: int) -> list[Phase]:
    """The phases of an output of `size` that have any element."""
    found = []
    for rho in range(stride):
        taps = tuple(k for k in range(kernel) if dilation * k % stride == rho)
        first, last = -(-(pad - rho) // stride), (size - 1 + pad - rho) // stride
        if last >= first:
            shifts = tuple((dilation * k - rho) // stride for k in taps)
            found.append(Phase(taps, shifts, first, last - first + 1, stride * first + rho - pad))
    return found


@dataclasses.dataclass(frozen=True)
class Transposed:
    """Sizes along the spatial dimensions."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    output: tuple[int, ...]


def sizes(node: Node, x: Value, weight: Value) -> Transposed:
    """By the operator's text, in any number of dimensions; `NotCompiled` where the operands do not fit each other."""
    spatial = len(x.shape) - 2
    if spatial < 1 or len(weight.shape) != len(x.shape):
        raise NotCompiled(f"{spatial} spatial dimensions of X {x.shape} with W {weight.shape}")
    if not weight.type.count or tuple(node.attribute("kernel_shape", weight.shape[2:])) != weight.shape[2:]:
        raise NotCompiled(f"weights {weight.shape} for kernel_shape {node.attribute('kernel_shape')}")
    if x.shape[1] != weight.shape[0] or weight.shape[0] % node.attribute("group", 1):
        raise NotCompiled(f"{x.shape[1]} channels do not fit weights {weight.shape} in {node.attribute('group', 1)} groups")
    kernel = weight.shape[2:]
    strides, dilations = (tuple(node.attribute(name, (1,) * spatial)) for name in ("strides", "dilations"))
    check_window(kernel, strides, dilations)
    extra = tuple(node.attribute("output_padding", (0,) * spatial))
    mode = node.attribute("auto_pad", "NOTSET")
    wanted = tuple(node.attribute("output_shape", ()))[-spatial:]
    if not wanted and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(d * s for d, s in zip(x.shape[2:], strides, strict=True))
    whole = tuple(
        s * (d - 1) + more + (k - 1) * dilation + 1
        for d, s, more, k, dilation in zip(x.shape[2:], strides, extra, kernel, dilations, strict=True)
    )
    if wanted:
        totals = tuple(w - o for w, o in zip(whole, wanted, strict=True))
        if any(total < -1 for total in totals):
            raise NotCompiled(f"output_shape {wanted} beyond the {whole} that the input reaches")
        before = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in totals)
        before = tuple(max(0, low) for low in before)
        output = wanted
    else:
        pads = (0,) * 2 * spatial if mode == "VALID" else tuple(node.attribute("pads", (0,) * 2 * spatial))
        before = pads[:spatial]
        output = tuple(w - low - high for w, low, high in zip(whole, before, pads[spatial:], strict=True))
    if any(d <= 0 for d in output):
        raise NotCompiled(f"an empty output {output}")
    return Transposed(kernel, strides, dilations, before, output)


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """[N, C, spatial…] × [C, filters / groups, kernel…] → [N, filters, spatial…]."""
    x, weight = required(inputs, 0), required(inputs, 1)
    if len(x.shape) not in (3, 4):
        raise NotCompiled(f"{len(x.shape) - 2} spatial dimensions; compiled for 1 and 2")
    found = sizes(node, x, weight)
    float_only(x)
    filters = weight.shape[1] * node.attribute("group", 1)
    dtype = check_operands(x, weight, optional(inputs, 2), filters)
    return [TensorType(dtype, (x.shape[0], filters, *found.output))]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """`phase_copy` into a padded plane, then one `conv` step per phase."""
    x, y = required(inputs, 0), required(outputs, 0)
    weight, bias = constant(required(inputs, 1)), optional(inputs, 2)
    dtype, groups = float_only(x), node.attribute("group", 1)
    found = sizes(node, x, required(inputs, 1))
    one = len(found.kernel) == 1
    kernel, strides, dilations, output, size = (
        (1, *values) if one else values for values in (found.kernel, found.strides, found.dilations, found.output, x.shape[2:])
    )
    before = (0, *found.before) if one else found.before
    filters = weight.shape[1] * groups
    shifts = np.zeros(filters, dtype) if bias is None else constant(bias)
    # [C, filters / groups, kernel] → [filters, C / groups, kernel]
    per_group = weight.reshape(groups, -1, weight.shape[1], *kernel).swapaxes(1, 2)
    turned = per_group.reshape(filters, -1, *kernel)
    both = [phases(*arguments) for arguments in zip(output, strides, dilations, kernel, before, strict=True)]
    # The plane holds every input position that some phase reads.
    ahead = [max((max(p.shifts) - p.first for p in dimension if p.taps), default=0) for dimension in both]
    ahead = [max(0, a) for a in ahead]
    behind = [
        max((p.first + p.count - min(p.shifts) - d for p in dimension if p.taps), default=0)
        for dimension, d in zip(both, size, strict=True)
    ]
    plane = tuple(d + low + max(0, high) for d, low, high in zip(size, ahead, behind, strict=True))
    g = Geometry(x.shape[0], x.shape[1], filters, groups, pair(size), pair(kernel), (1, 1), (1, 1), pair(ahead), pair(output), pair(plane))
    layer = Layer(node, x, y, g, turned, shifts, target)
    tiles = [tile_shape(layer, p.count * plane[1]) for p in both[0]]
    copied = phase_copy(x, g, max(tile.vectors for tile in tiles) * layer.lanes)
    steps: list[Step | Alias] = [copied]
    channels = np.arange(x.shape[1] // groups) * math.prod(plane)
    for (p, tile), q in itertools.product(zip(both[0], tiles, strict=True), both[1]):
        rows, columns = (
            np.array([phase.first - shift + low for shift in phase.shifts], np.int64) for phase, low in zip((p, q), ahead, strict=True)
        )
        taps = (rows[:, None] * plane[1] + columns[None, :]).reshape(-1)
        offsets = (channels[:, None] + taps[None, :]).reshape(-1)
        part = turned[:, :, list(p.taps), :][:, :, :, list(q.taps)]
        window = Window((p.count, q.count), p.start * output[1] + q.start, strides[0] * output[1], strides[1])
        steps.append(product(layer, scratch_of(copied), part.reshape(filters, -1), offsets, window, tile, f"{p.start}:{q.start}"))
    return steps


def pair(values: Sequence[int]) -> tuple[int, int]:
    """Two numbers as a tuple of two."""
    first, second = values
    return first, second


OPERATORS = {("", "ConvTranspose"): Operator(infer, lower)}
