"""How each operator carries the rows of a batch from its inputs to its outputs, and for which axes it keeps them apart.

An operator that is not in `RULES` is taken to mix rows. A rule only has to be right about the mixing: `openinfer/codegen/independence.py`
checks the shapes that follow from its answer for two numbers of rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from openinfer.ir.graph import Node
from openinfer.ops import elementwise, movement, normalize, pool, recurrent, reduce, resize, scan, softmax, trees
from openinfer.ops._base import Value, axis_of, known, required

WHOLE = 2**31 - 1  # a slice that ends there ends with the axis


class Mixed(Exception):
    """The node is not known to keep rows apart."""


@dataclasses.dataclass(frozen=True)
class Rows:
    """The axis along which the rows lie: its element i belongs to row i // `each`."""

    axis: int
    each: int = 1


@dataclasses.dataclass(frozen=True)
class Counted:
    """A content that is known before the call and depends on the number of rows in these places, flattened."""

    varying: tuple[bool, ...]


Place = Rows | Counted | None  # None: the same for any number of rows


@dataclasses.dataclass(frozen=True)
class Use:
    """A node over `count` rows: its inputs and where each has its rows; the shapes of its outputs."""

    node: Node
    inputs: tuple[Value | None, ...]
    places: tuple[Place, ...]
    shapes: tuple[tuple[int, ...], ...]
    count: int

    def shape(self, position: int) -> tuple[int, ...]:
        """The shape of an input."""
        return required(self.inputs, position).shape

    def rank(self, position: int = 0) -> int:
        """The rank of an input."""
        return len(self.shape(position))

    def only(self, *others: int) -> Rows:
        """The rows of input 0, where no other input depends on them but for those of shapes, at the positions `others`."""
        first = self.places[0]
        if not isinstance(first, Rows) or any(place is not None and i not in (0, *others) for i, place in enumerate(self.places)):
            raise Mixed
        if any(isinstance(self.places[i], Rows) for i in others if i < len(self.places)):
            raise Mixed
        return first


Rule = Callable[[Use], Rows | Sequence[Rows]]


def _require(apart: bool) -> None:
    if not apart:
        raise Mixed


def _aligned(use: Use, rank: int) -> Rows:
    """The rows of inputs that broadcast to `rank`: on one axis, counted from the last, in all that have any."""
    found = set()
    for position, place in enumerate(use.places):
        _require(not isinstance(place, Counted))
        if isinstance(place, Rows):
            found.add(Rows(place.axis + rank - use.rank(position), place.each))
    _require(len(found) == 1)
    return found.pop()


def _elementwise(use: Use) -> Rows:
    return _aligned(use, len(use.shapes[0]))


def _same(use: Use) -> Rows:
    return use.only()


def _leading(use: Use) -> Rows:
    """Images, each for itself."""
    _require(use.only().axis == 0)
    return use.only()


def _batch_norm(use: Use) -> Rows:
    _require(use.only().axis != 1)
    return use.only()


def _triangle(use: Use) -> Rows:
    _require(use.only().axis < use.rank() - 2)
    return use.only()


def _softmax(use: Use) -> Rows:
    axis = softmax.axis(use.node, required(use.inputs, 0))
    _require(use.only().axis < axis if use.node.version < 13 else use.only().axis != axis)
    return use.only()


def _lines(use: Use) -> Rows:
    _require(use.only().axis < axis_of(use.node.attribute("axis", -1), use.rank()))
    return use.only()


def _without(rows: Rows, axes: Sequence[int], keep: bool) -> Rows:
    _require(rows.axis not in axes)
    return rows if keep else Rows(rows.axis - sum(axis < rows.axis for axis in axes), rows.each)


def _reduce(use: Use) -> Rows:
    axes = reduce.axes(use.node, use.inputs, use.rank())
    return _without(use.only(), axes, bool(use.node.attribute("keepdims", 1)) or use.node.op in reduce.GLOBAL)


def _extreme(use: Use) -> Rows:
    return _without(use.only(), [axis_of(use.node.attribute("axis", 0), use.rank())], bool(use.node.attribute("keepdims", 1)))


def _cumulative(use: Use) -> Rows:
    return _without(use.only(), [axis_of(scan.scalar(required(use.inputs, 1), "the axis"), use.rank())], True)


def _top(use: Use) -> Rows:
    return _without(use.only(), [axis_of(use.node.attribute("axis", -1), use.rank())], True)


def _split(use: Use) -> Rows:
    return _without(use.only(), [axis_of(use.node.attribute("axis", 0), use.rank())], True)


def _resize(use: Use) -> Rows:
    rows = use.only(3)
    _require(resize.axes(use.node, use.inputs)[rows.axis].idle)
    return rows


def _gemm(use: Use) -> Rows:
    node, a = use.node, use.places[0]
    _require(isinstance(a, Rows) and use.places[1] is None)
    assert isinstance(a, Rows)
    _require(a.axis == (1 if node.attribute("transA", 0) else 0))
    if len(use.places) > 2 and use.places[2] is not None:
        _require(use.places[2] == Rows(0, a.each) and use.rank(2) == 2)
    return Rows(0, a.each)


def _matmul(use: Use) -> Rows:
    """Counted from the last axis: rows of A stay where they are, and so do columns of B and the batches of both."""
    (a, b), rank = use.places[:2], len(use.shapes[0])
    _require(not any(use.places[2:]) and min(use.rank(0), use.rank(1)) > 1)
    found = _aligned(dataclasses.replace(use, places=(a, b), inputs=use.inputs[:2]), rank)
    last = rank - found.axis
    _require(last > 2 or (last == 2 and b is None) or (last == 1 and a is None))
    return found


def _recurrent(use: Use) -> Sequence[Rows]:
    x, first = use.places[0], bool(use.node.attribute("layout", 0))
    _require(isinstance(x, Rows) and x.axis == (0 if first else 1))
    assert isinstance(x, Rows)
    state = Rows(0 if first else 1, x.each)
    allowed = {0: x, 4: Rows(0, x.each), 5: state, 6: state}
    _require(all(place is None or allowed.get(i) == place for i, place in enumerate(use.places)))
    return [Rows(0 if first else 2, x.each), state, state]


def _transpose(use: Use) -> Rows:
    rows = use.only()
    return Rows(movement.permutation(use.node, required(use.inputs, 0)).index(rows.axis), rows.each)


def _concat(use: Use) -> Rows:
    _require(None not in use.places)
    rows = _aligned(use, len(use.shapes[0]))
    return _without(rows, [axis_of(use.node.attribute("axis"), use.rank())], True)


def _slice(use: Use) -> Rows:
    """A fixed end may lie within a larger batch, so only an end that is the axis's own keeps the rows."""
    rows, node, rank = use.only(), use.node, use.rank()
    if node.version < 10:
        starts, ends = list(node.attribute("starts")), list(node.attribute("ends"))
        axes, steps = list(node.attribute("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = (movement.ints(required(use.inputs, i), "the bounds") for i in (1, 2))
        given = [use.inputs[i] if i < len(use.inputs) else None for i in (3, 4)]
        axes = movement.ints(given[0], "axes") if given[0] is not None else list(range(len(starts)))
        steps = movement.ints(given[1], "steps") if given[1] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        _require(axis_of(axis, rank) != rows.axis or (start == 0 and end >= WHOLE and step == 1))
    return rows


def _pad(use: Use) -> Rows:
    rows = use.only()
    before, after = movement.padding(use.node, use.inputs)
    _require(before[rows.axis] == after[rows.axis] == 0)
    return rows


def _tile(use: Use) -> Rows:
    rows = use.only()
    _require(int(known(required(use.inputs, 1), "the repeats")[rows.axis]) == 1)
    return rows


def _regroup(use: Use) -> Rows:
    """The elements in their order: an axis that begins where the rows begin, and has a whole number of places for each."""
    rows, x, y = use.only(1), use.shape(0), use.shapes[0]
    before, each = math.prod(x[: rows.axis]), rows.each * math.prod(x[rows.axis + 1 :])
    for axis, size in enumerate(y):
        own = size // use.count
        if math.prod(y[:axis]) == before and size % use.count == 0 and own * math.prod(y[axis + 1 :]) == each and own:
            return Rows(axis, own)
    raise Mixed


def _expand(use: Use) -> Rows:
    """Rows stay; what has none is repeated for each."""
    x, shape, rank = use.places[0], use.places[1], len(use.shapes[0])
    if isinstance(x, Rows):
        return Rows(use.only(1).axis + rank - use.rank(), x.each)
    _require(x is None and isinstance(shape, Counted))
    assert isinstance(shape, Counted)
    rows = _counted_axis(use, shape, rank - len(shape.varying))
    own = rows.axis - (rank - use.rank())
    _require(own < 0 or use.shape(0)[own] == 1)
    return rows


def _constant_of_shape(use: Use) -> Rows:
    (shape,) = use.places
    _require(isinstance(shape, Counted))
    assert isinstance(shape, Counted)
    return _counted_axis(use, shape, 0)


def _counted_axis(use: Use, shape: Counted, missing: int) -> Rows:
    _require(sum(shape.varying) == 1)
    axis = shape.varying.index(True) + missing
    each, left = divmod(use.shapes[0][axis], use.count)
    _require(not left and each > 0)
    return Rows(axis, each)


def _gather(use: Use) -> Rows:
    (x, indices), axis = use.places, axis_of(use.node.attribute("axis", 0), use.rank())
    if x is None and isinstance(indices, Rows):
        return Rows(axis + indices.axis, indices.each)
    rows = use.only()
    _require(rows.axis != axis)
    return rows if rows.axis < axis else Rows(rows.axis + use.rank(1) - 1, rows.each)


def _elements(use: Use) -> Rows:
    rows = use.places[0]
    _require(isinstance(rows, Rows) and all(place == rows for place in use.places))
    assert isinstance(rows, Rows)
    return _without(rows, [axis_of(use.node.attribute("axis", 0), use.rank())], True)


def _gather_nd(use: Use) -> Rows:
    x, indices = use.places
    _require(isinstance(indices, Rows))
    assert isinstance(indices, Rows)
    shared = use.node.attribute("batch_dims", 0)
    if x is None:
        _require(shared <= indices.axis < use.rank(1) - 1)
    else:
        _require(x == indices and indices.axis < shared)
    return indices


def _one_hot(use: Use) -> Rows:
    rows = use.only()
    return Rows(rows.axis + (axis_of(use.node.attribute("axis", -1), use.rank() + 1) <= rows.axis), rows.each)


RULES: dict[tuple[str, str], Rule] = {
    **dict.fromkeys(elementwise.OPERATORS, _elementwise),
    ("", "Trilu"): _triangle,
    ("", "Dropout"): _same,
    ("", "Identity"): _same,
    ("", "BatchNormalization"): _batch_norm,
    **dict.fromkeys(softmax.OPERATORS, _softmax),
    **dict.fromkeys(reduce.OPERATORS, _reduce),
    ("", "ArgMax"): _extreme,
    ("", "ArgMin"): _extreme,
    ("", "CumSum"): _cumulative,
    ("", "CumProd"): _cumulative,
    ("", "TopK"): _top,
    **dict.fromkeys(normalize.OPERATORS, _leading),
    ("", "LayerNormalization"): _lines,
    ("", "RMSNormalization"): _lines,
    **dict.fromkeys(pool.OPERATORS, _leading),
    ("", "Conv"): _leading,
    ("", "ConvTranspose"): _leading,
    ("", "DepthToSpace"): _leading,
    ("", "SpaceToDepth"): _leading,
    **dict.fromkeys(trees.OPERATORS, _leading),
    **dict.fromkeys(resize.OPERATORS, _resize),
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
    **dict.fromkeys(recurrent.OPERATORS, _recurrent),
    ("", "Reshape"): _regroup,
    ("", "Flatten"): _regroup,
    ("", "Squeeze"): _regroup,
    ("", "Unsqueeze"): _regroup,
    ("", "Transpose"): _transpose,
    ("", "Concat"): _concat,
    ("", "Split"): _split,
    ("", "Slice"): _slice,
    ("", "Expand"): _expand,
    ("", "Tile"): _tile,
    ("", "Pad"): _pad,
    ("", "Gather"): _gather,
    ("", "GatherElements"): _elements,
    ("", "ScatterElements"): _elements,
    ("", "Scatter"): _elements,
    ("", "GatherND"): _gather_nd,
    ("", "OneHot"): _one_hot,
    ("", "ConstantOfShape"): _constant_of_shape,
}

# Of whole numbers that follow from sizes, these make products of them: places that agree for two numbers of rows agree for all.
PRODUCTS = frozenset({"Gather", "Slice", "Concat", "Squeeze", "Unsqueeze", "Reshape", "Identity", "Cast", "Split", "Mul"})


def varying(some: Value, others: Value) -> Counted | None:
    """Where a content of whole numbers, known before the call, differs between two numbers of rows; shapes must agree."""
    if some.data is None or others.data is None or some.shape != others.shape or some.dtype not in ("int32", "int64"):
        raise Mixed
    places = np.asarray(some.data != others.data).reshape(-1)
    return Counted(tuple(bool(place) for place in places)) if places.any() else None
