"""Operators that move elements: reshaping as aliases, everything else as strided copies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.errors import ModelError
from openinfer.ir.graph import ITEM_BYTES, Node, TensorType
from openinfer.ops._base import (
    Alias,
    NotCompiled,
    Operand,
    Operator,
    Packed,
    Step,
    Target,
    Value,
    axis_of,
    known,
    optional,
    required,
    same_dtype,
)

FILL_BLOCK = 4096
ELEMENT_NS, CALL_NS = 0.5, 5.0

Inputs = Sequence[Value | None]


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a C-contiguous tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def copy(
    source: Value, output: Operand, sizes: Sequence[int], read: Sequence[int], write: Sequence[int], read_at: int = 0, write_at: int = 0
) -> Step:
    """Elements of `source` at `read_at` + Σ i·read → `output` at `write_at` + Σ i·write. Adjacent dimensions merge where both strides
    allow.
    """
    merged: list[tuple[int, int, int]] = []
    for size, r, w in zip(sizes, read, write, strict=True):
        if merged and merged[-1][1] == r * size and merged[-1][2] == w * size:
            merged[-1] = merged[-1][0] * size, r, w
        else:
            merged.append((size, r, w))
    *outer, (n, step_read, step_write) = merged or [(1, 1, 1)]
    rows = math.prod(size for size, _, _ in outer)
    count = rows * n
    columns = tuple(tuple(column) for column in zip(*outer, strict=True)) if outer else ((), (), ())
    return Step(
        "strided_copy",
        {"item_bytes": ITEM_BYTES[source.dtype], "outer": len(outer)},
        (source, output),
        (read_at, write_at, n, step_read, step_write, *columns[0], *columns[1], *columns[2]),
        rows if n else 0,
        CALL_NS + ELEMENT_NS * count,
        (1,),
    )


def ints(value: Value, what: str) -> list[int]:
    """The numbers that `value` holds; `NotCompiled` where only the call knows them."""
    return [int(item) for item in np.asarray(known(value, what)).reshape(-1)]


def _axes(node: Node, inputs: Inputs, position: int, since: int, rank: int) -> list[int] | None:
    """Axes from an attribute before opset `since`, from an input after."""
    if node.version < since:
        axes = node.attribute("axes")
        found = None if axes is None else [int(axis) for axis in axes]
    else:
        value = optional(inputs, position)
        found = None if value is None else ints(value, "the list of axes")
    return None if found is None else [axis_of(axis, rank) for axis in found]


def _alias(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    return [Alias(required(outputs, 0), required(inputs, 0))]


def _infer_same(node: Node, inputs: Inputs) -> list[TensorType]:
    return [required(inputs, 0).type]


def _infer_reshape(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    shape = [int(d) for d in node.attribute("shape")] if node.version < 5 else ints(required(inputs, 1), "the new shape")
    if not node.attribute("allowzero", 0):
        shape = [x.shape[axis] if d == 0 and axis < len(x.shape) else d for axis, d in enumerate(shape)]
    if shape.count(-1) == 1:
        rest = math.prod(d for d in shape if d != -1)
        if rest == 0:
            raise NotCompiled("an inferred dimension beside an empty one")
        shape[shape.index(-1)] = x.type.count // rest
    if any(d < 0 for d in shape) or math.prod(shape) != x.type.count:
        raise NotCompiled(f"{x.shape} cannot become {shape}")
    return [TensorType(x.dtype, tuple(shape))]


def _infer_flatten(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    given, rank = node.attribute("axis", 1), len(x.shape)
    axis = rank if given == rank else axis_of(given, rank)
    return [TensorType(x.dtype, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))]


def _infer_squeeze(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    axes = _axes(node, inputs, 1, 13, len(x.shape))
    if axes is None:
        raise NotCompiled("no axes given: which dimensions go depends on the batch")
    if any(x.shape[axis] != 1 for axis in axes):
        raise NotCompiled(f"axes {axes} of shape {x.shape} are not all 1")
    return [TensorType(x.dtype, tuple(d for axis, d in enumerate(x.shape) if axis not in axes))]


def _infer_unsqueeze(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    given = node.attribute("axes") if node.version < 13 else ints(required(inputs, 1), "the list of axes")
    rank = len(x.shape) + len(given)
    axes = {axis_of(axis, rank) for axis in given}
    if len(axes) != len(given):
        raise NotCompiled(f"axes {list(given)} name one dimension twice")
    remaining = iter(x.shape)
    return [TensorType(x.dtype, tuple(1 if axis in axes else next(remaining) for axis in range(rank)))]


def permutation(node: Node, x: Value) -> list[int]:
    """For each axis of the output, the axis of `x` that it is."""
    rank = len(x.shape)
    found = [int(axis) for axis in node.attribute("perm", tuple(reversed(range(rank))))]
    if sorted(found) != list(range(rank)):
        raise NotCompiled(f"perm {found} is no permutation of the {rank} axes")
    return found


def _infer_transpose(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    return [TensorType(x.dtype, tuple(x.shape[axis] for axis in permutation(node, x)))]


def _lower_transpose(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    x, y = required(inputs, 0), required(outputs, 0)
    strides = contiguous(x.shape)
    return [copy(x, y, y.shape, [strides[axis] for axis in permutation(node, x)], contiguous(y.shape))]


def _infer_concat(node: Node, inputs: Inputs) -> list[TensorType]:
    values = [required(inputs, position) for position in range(len(inputs))]
    dtype, shape = same_dtype(*values), list(values[0].shape)
    axis = axis_of(node.attribute("axis"), len(shape))
    if any(value.shape[:axis] + value.shape[axis + 1 :] != (*shape[:axis], *shape[axis + 1 :]) for value in values):
        raise NotCompiled(f"shapes {', '.join(str(value.shape) for value in values)} differ beside axis {axis}")
    shape[axis] = sum(value.shape[axis] for value in values)
    return [TensorType(dtype, tuple(shape))]


def _lower_concat(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    y = required(outputs, 0)
    axis, strides, at = axis_of(node.attribute("axis"), len(y.shape)), contiguous(y.shape), 0
    steps: list[Step | Alias] = []
    for position in range(len(inputs)):
        x = required(inputs, position)
        steps.append(copy(x, y, x.shape, contiguous(x.shape), strides, 0, at * strides[axis]))
        at += x.shape[axis]
    return steps


def _splits(node: Node, inputs: Inputs) -> tuple[int, list[int]]:
    x, given = required(inputs, 0), optional(inputs, 1)
    axis = axis_of(node.attribute("axis", 0), len(x.shape))
    if node.version < 13:
        sizes = [int(size) for size in node.attribute("split", ())]
    else:
        sizes = ints(given, "the list of sizes") if given is not None else []
    if not sizes:
        count = node.attribute("num_outputs", len(node.outputs))
        part = -(-x.shape[axis] // count)
        sizes = [min(part, max(0, x.shape[axis] - part * index)) for index in range(count)]
    if min(sizes, default=0) < 0 or sum(sizes) != x.shape[axis]:
        raise NotCompiled(f"parts of {sizes} of axis {axis} of size {x.shape[axis]}")
    return axis, sizes


def _infer_split(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    axis, sizes = _splits(node, inputs)
    return [TensorType(x.dtype, (*x.shape[:axis], size, *x.shape[axis + 1 :])) for size in sizes]


def _lower_split(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    x = required(inputs, 0)
    axis, sizes = _splits(node, inputs)
    strides, at = contiguous(x.shape), 0
    steps: list[Step | Alias] = []
    for size, y in zip(sizes, outputs, strict=False):
        if y is not None:
            steps.append(copy(x, y, y.shape, strides, contiguous(y.shape), at * strides[axis]))
        at += size
    return steps


def _slices(node: Node, inputs: Inputs) -> tuple[list[tuple[int, int, int]], Value]:
    """(start, length, step) per axis."""
    x = required(inputs, 0)
    rank = len(x.shape)
    if node.version < 10:
        starts, ends = list(node.attribute("starts")), list(node.attribute("ends"))
        axes, steps = list(node.attribute("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = ints(required(inputs, 1), "starts"), ints(required(inputs, 2), "ends")
        given_axes, given_steps = optional(inputs, 3), optional(inputs, 4)
        axes = ints(given_axes, "axes") if given_axes is not None else list(range(len(starts)))
        steps = ints(given_steps, "steps") if given_steps is not None else [1] * len(starts)
    table = [(0, d, 1) for d in x.shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = axis_of(axis, rank)
        places = range(x.shape[at])[slice(start, end, step)]
        table[at] = places.start, len(places), step
    return table, x


def _infer_slice(node: Node, inputs: Inputs) -> list[TensorType]:
    table, x = _slices(node, inputs)
    return [TensorType(x.dtype, tuple(length for _, length, _ in table))]


def _lower_slice(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    table, x = _slices(node, inputs)
    y, strides = required(outputs, 0), contiguous(x.shape)
    at = sum(start * stride for (start, length, _), stride in zip(table, strides, strict=True)) if y.type.count else 0
    return [copy(x, y, y.shape, [step * stride for (_, _, step), stride in zip(table, strides, strict=True)], contiguous(y.shape), at)]


def _infer_expand(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    return [TensorType(x.dtype, np.broadcast_shapes(x.shape, tuple(ints(required(inputs, 1), "the new shape"))))]


def _lower_expand(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    x, y = required(inputs, 0), required(outputs, 0)
    shape = (1,) * (len(y.shape) - len(x.shape)) + x.shape
    strides = [0 if d == 1 else stride for d, stride in zip(shape, contiguous(shape), strict=True)]
    return [copy(x, y, y.shape, strides, contiguous(y.shape))]


def _infer_tile(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    if node.version < 6:
        raise NotCompiled(f"opset {node.version}; compiled from 6")
    repeats = ints(required(inputs, 1), "the repeats")
    if len(repeats) != len(x.shape) or min(repeats, default=0) < 0:
        raise NotCompiled(f"repeats {repeats} of shape {x.shape}")
    return [TensorType(x.dtype, tuple(d * r for d, r in zip(x.shape, repeats, strict=True)))]


def _lower_tile(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    x, y = required(inputs, 0), required(outputs, 0)
    repeats = ints(required(inputs, 1), "the repeats")
    sizes, read, write = [], [], []
    for d, repeat, r, w in zip(x.shape, repeats, contiguous(x.shape), contiguous(y.shape), strict=True):
        sizes += [repeat, d]
        read += [0, r]
        write += [w * d, w]
    return [copy(x, y, sizes, read, write)]


def padding(node: Node, inputs: Inputs) -> tuple[list[int], list[int]]:
    """Elements added before and after, per axis; negative ones crop."""
    x = required(inputs, 0)
    rank = len(x.shape)
    given = [int(p) for p in node.attribute("pads")] if node.version < 11 else ints(required(inputs, 1), "the pads")
    value = optional(inputs, 3)
    axes = [axis_of(axis, rank) for axis in ints(value, "axes")] if value is not None else list(range(rank))
    if len(given) != 2 * len(axes):
        raise NotCompiled(f"{len(given)} pads for {len(axes)} axes")
    before, after = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        before[axis], after[axis] = given[index], given[index + len(axes)]
    return before, after


def _infer_pad(node: Node, inputs: Inputs) -> list[TensorType]:
    x = required(inputs, 0)
    if node.attribute("mode", "constant") != "constant":
        raise NotCompiled(f"mode {node.attribute('mode')!r}; compiled for 'constant'")
    content = optional(inputs, 2) if node.version >= 11 else None
    if content is not None and (content.dtype != x.dtype or content.type.count != 1):
        raise NotCompiled(f"a value of {content.dtype} {content.shape} around {x.dtype}")
    before, after = padding(node, inputs)
    shape = tuple(d + low + high for d, low, high in zip(x.shape, before, after, strict=True))
    if any(d < 0 for d in shape):
        raise NotCompiled(f"pads that leave shape {shape}")
    return [TensorType(x.dtype, shape)]


def _lower_pad(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    x, y = required(inputs, 0), required(outputs, 0)
    before, after = padding(node, inputs)
    content = optional(inputs, 2) if node.version >= 11 else None
    number = float(node.attribute("value", 0.0)) if node.version < 11 else 0.0
    dtype = x.dtype
    value = content if content is not None else Packed(f"number {number} {dtype}", lambda: np.array([number]).astype(dtype))
    count = y.type.count
    filled = Step(
        "fill",
        {"item_bytes": ITEM_BYTES[dtype], "block": FILL_BLOCK},
        (value, y),
        (count,),
        -(-count // FILL_BLOCK),
        CALL_NS + 0.1 * count,
        (1,),
    )
    kept = [max(0, d + min(low, 0) + min(high, 0)) for d, low, high in zip(x.shape, before, after, strict=True)]
    read_at = sum(max(0, -low) * stride for low, stride in zip(before, contiguous(x.shape), strict=True))
    write_at = sum(max(0, low) * stride for low, stride in zip(before, contiguous(y.shape), strict=True))
    return [filled, copy(x, y, kept, contiguous(x.shape), contiguous(y.shape), read_at, write_at)]


def _infer_gather(node: Node, inputs: Inputs) -> list[TensorType]:
    x, indices = required(inputs, 0), required(inputs, 1)
    axis = axis_of(node.attribute("axis", 0), len(x.shape))
    if indices.dtype not in ("int32", "int64"):
        raise NotCompiled(f"indices of {indices.dtype}; compiled for int32 and int64")
    if indices.data is not None and indices.data.size and not (-x.shape[axis] <= indices.data.min() and indices.data.max() < x.shape[axis]):
        raise ModelError(f"Gather {node.outputs[0]!r}: found indices outside axis {axis} of size {x.shape[axis]}; mend the model")
    return [TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))]


def _lower_gather(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    x, indices, y = required(inputs, 0), required(inputs, 1), required(outputs, 0)
    axis = axis_of(node.attribute("axis", 0), len(x.shape))
    inner, count = math.prod(x.shape[axis + 1 :]), indices.type.count
    blocks = math.prod(x.shape[:axis]) * count if inner else 0
    return [
        Step(
            "gather",
            {"item_bytes": ITEM_BYTES[x.dtype], "index": indices.dtype},
            (x, indices, y),
            (x.shape[axis], count, inner),
            blocks,
            CALL_NS + ELEMENT_NS * y.type.count,
            (2,),
        )
    ]


def _infer_depth_to_space(node: Node, inputs: Inputs) -> list[TensorType]:
    x, b = required(inputs, 0), node.attribute("blocksize")
    n, c, h, w = x.shape
    if b < 1 or (c % (b * b) if node.op == "DepthToSpace" else h % b or w % b):
        raise NotCompiled(f"blocks of {b} in shape {x.shape}")
    if node.op == "DepthToSpace":
        return [TensorType(x.dtype, (n, c // (b * b), h * b, w * b))]
    return [TensorType(x.dtype, (n, c * b * b, h // b, w // b))]


def _lower_depth_to_space(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    x, y, b = required(inputs, 0), required(outputs, 0), node.attribute("blocksize")
    n, c, h, w = x.shape
    if node.op == "SpaceToDepth":
        blocks_first = node.attribute("mode", "DCR") == "DCR"
        split, order = (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4) if blocks_first else (0, 1, 3, 5, 2, 4)
    elif node.attribute("mode", "DCR") == "DCR":
        split, order = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    else:
        split, order = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    strides = contiguous(split)
    sizes = [split[axis] for axis in order]
    return [copy(x, y, sizes, [strides[axis] for axis in order], contiguous(sizes))]


OPERATORS = {
    ("", "Identity"): Operator(_infer_same, _alias),
    ("", "Reshape"): Operator(_infer_reshape, _alias),
    ("", "Flatten"): Operator(_infer_flatten, _alias),
    ("", "Squeeze"): Operator(_infer_squeeze, _alias),
    ("", "Unsqueeze"): Operator(_infer_unsqueeze, _alias),
    ("", "Transpose"): Operator(_infer_transpose, _lower_transpose),
    ("", "Concat"): Operator(_infer_concat, _lower_concat),
    ("", "Split"): Operator(_infer_split, _lower_split),
    ("", "Slice"): Operator(_infer_slice, _lower_slice),
    ("", "Expand"): Operator(_infer_expand, _lower_expand),
    ("", "Tile"): Operator(_infer_tile, _lower_tile),
    ("", "Pad"): Operator(_infer_pad, _lower_pad),
    ("", "Gather"): Operator(_infer_gather, _lower_gather),
    ("", "DepthToSpace"): Operator(_infer_depth_to_space, _lower_depth_to_space),
    ("", "SpaceToDepth"): Operator(_infer_depth_to_space, _lower_depth_to_space),
}
