"""Pooling over one or two spatial dimensions, and over all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operand, Operator, Packed, Scratch, Step, Target, Value, float_only, required
from openinfer.ops.conv_geometry import padding

LINES = 4  # as in the kernel
ROW_NS, VECTOR_NS = 8.0, 0.5


@dataclasses.dataclass(frozen=True)
class Extent:
    """The windows of a pooling operator, in as many spatial dimensions as it has."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    output: tuple[int, ...]
    after: tuple[int, ...]

    def reach(self, size: Sequence[int]) -> tuple[int, ...]:
        """Elements behind each dimension that some window looks at, the padding among them."""
        return tuple(
            max(high, (o - 1) * s + (k - 1) * dilation + 1 - d - low)
            for d, o, s, k, dilation, low, high in zip(
                size, self.output, self.strides, self.kernel, self.dilations, self.before, self.after, strict=True
            )
        )

    def counts(self, size: Sequence[int], include_pad: bool) -> Array:
        """[output…] float64: the elements of each window that an average divides by."""
        total = np.ones(())
        for d, o, s, k, dilation, low, high in zip(
            size, self.output, self.strides, self.kernel, self.dilations, self.before, self.after, strict=True
        ):
            places = np.arange(o)[:, None] * s - low + np.arange(k)[None, :] * dilation
            inside = places < d + high if include_pad else (places >= 0) & (places < d)
            total = total[..., None] * inside.sum(1)
        return total


def extent(node: Node, size: Sequence[int]) -> Extent:
    """The windows over an image of spatial `size`; `NotCompiled` where the output is empty."""
    spatial = len(size)
    kernel = tuple(node.attribute("kernel_shape"))
    strides, dilations = tuple(node.attribute("strides", (1,) * spatial)), tuple(node.attribute("dilations", (1,) * spatial))
    before, after = padding(node, size, kernel, strides, dilations)
    output = []
    for d, low, high, k, dilation, s in zip(size, before, after, kernel, dilations, strides, strict=True):
        room = d + low + high - (k - 1) * dilation - 1
        count = (-(-room // s) if node.attribute("ceil_mode", 0) else room // s) + 1
        if node.attribute("ceil_mode", 0) and (count - 1) * s >= d + low:
            count -= 1  # a window that would start in the padding behind the image
        output.append(count)
    if any(d <= 0 for d in output):
        raise NotCompiled(f"an empty output {output}")
    return Extent(kernel, strides, dilations, before, tuple(output), after)


def _window(node: Node, x: Value) -> tuple[tuple[int, ...], ...]:
    """kernel, strides, dilations, pads before, output, pads after; two spatial dimensions each."""
    spatial = len(x.shape) - 2
    if spatial not in (1, 2):
        raise NotCompiled(f"{spatial} spatial dimensions; compiled for 1 and 2")
    found = extent(node, x.shape[2:])
    ones, zeros = (1,) * (2 - spatial), (0,) * (2 - spatial)
    return (
        (*ones, *found.kernel),
        (*ones, *found.strides),
        (*ones, *found.dilations),
        (*zeros, *found.before),
        (*ones, *found.output),
        (*zeros, *found.after),
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
    window, maximum = _window(node, x), node.op == "MaxPool"
    size = x.shape[2:] if len(x.shape) == 4 else (1, *x.shape[2:])
    if size[1] == window[0][1] == window[4][1] == 1:
        # One column is one row: its elements are neighbours, and fill vectors.
        size, window = size[::-1], tuple(values[::-1] for values in window)
    kernel, strides, dilations, before, output, after = window
    statics = {
        "dtype": x.dtype,
        "maximum": maximum,
        "kernel": kernel,
        "column_step": strides[1],
        "column_dilation": dilations[1],
    }
    lanes = target.machine.lanes(x.dtype if maximum else "float64")
    reach = (-(-output[1] // lanes) * lanes + lanes) * strides[1] + kernel[1] * dilations[1]
    elements = max(reach, before[1] + size[1] + lanes)
    padded = bool(node.attribute("count_include_pad", 0))
    taps: Operand = x if maximum else _taps(size[1], kernel[1], strides[1], dilations[1], before[1], after[1], output[1], padded, lanes)
    line = Scratch("line", LINES * elements * np.dtype(x.dtype if maximum else "float64").itemsize, per_thread=True)
    nothing = Scratch("nothing", (size[1] + lanes) * np.dtype(x.dtype).itemsize, per_thread=True)
    sizes = (*size, strides[0], dilations[0], *before, after[0] if padded else -1, *output, elements)
    cost = 10 + math.prod(x.shape[:2]) * (elements * 0.1 + output[0] * (ROW_NS + VECTOR_NS * (sum(kernel) + 2) * -(-size[1] // lanes)))
    return [Step("pool", statics, (x, taps, line, nothing, y), sizes, math.prod(x.shape[:2]), cost, (2, 3, 4))]


def _taps(width: int, kernel: int, step: int, dilation: int, left: int, right: int, output: int, padded: bool, lanes: int) -> Packed:
    """How many columns of each window count for its average, with a vector to spare."""

    def make() -> Array:
        columns = np.arange(output)[:, None] * step - left + np.arange(kernel)[None, :] * dilation
        inside = columns < width + right if padded else (columns >= 0) & (columns < width)
        counts = np.ones(output + lanes)
        counts[:output] = inside.sum(1)
        return counts

    return Packed(f"taps {width} {kernel} {step} {dilation} {left} {right} {output} {padded} {lanes}", make)


OPERATORS = {("", name): Operator(infer, lower) for name in ("MaxPool", "AveragePool")}
