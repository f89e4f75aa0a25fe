"""TreeEnsembleRegressor, TreeEnsembleClassifier and TreeEnsemble: one `trees` step. Scores of string labels run on the fallback."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from openinfer.errors import ModelError
from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops import tree_bits, tree_ensemble, tree_packing, tree_splits
from openinfer.ops._base import Alias, NotCompiled, Operand, Operator, Packed, Scratch, Step, Target, Value, optional, required

INTERLEAVE = 12
TREE_NS = 8.0  # one tree, one row, interleaved
ENTRY_NS, WORD_NS = 1.6, 15.0  # one entry, one word, a whole tile of rows


@dataclasses.dataclass(frozen=True)
class Form:
    """What a node computes, apart from its trees. `classes` is 0 for a regressor; `binary` is the only class with weights, or -1."""

    given: str
    dtype: str
    out: str
    aggregate: str
    transform: str
    targets: int
    classes: int
    binary: int
    labels: tuple[int, ...]
    base: tuple[float, ...]


def form_of(node: Node, x: Value, ensemble: tree_ensemble.Ensemble) -> Form:
    """Raises `NotCompiled` for strings, other types and rows that are too short, `HostileModelError` and `ModelError` for what contradicts
    itself.
    """
    tree_ensemble.check_targets(node)
    if len(x.shape) == 2 and ensemble.features > x.shape[1]:
        raise NotCompiled(f"a tree tests feature {ensemble.features - 1}; the input has {x.shape[1]}")
    if x.dtype not in ("float32", "float64", "int32", "int64") or len(x.shape) != 2:
        raise NotCompiled(f"input of {x.dtype} {x.shape}; compiled for rows of float32, float64, int32, int64")
    aggregate, transform = node.attribute("aggregate_function", "SUM"), node.attribute("post_transform", "NONE")
    if node.op == "TreeEnsemble":
        aggregate, transform = node.attribute("aggregate_function", 1), node.attribute("post_transform", 0)
        aggregate = tree_ensemble.AGGREGATES[aggregate] if 0 <= aggregate < 4 else aggregate
        transform = tree_ensemble.TRANSFORMS[transform] if 0 <= transform < 5 else transform
    for name, value, known in (
        ("aggregate_function", aggregate, tree_ensemble.AGGREGATES),
        ("post_transform", transform, tree_ensemble.TRANSFORMS),
    ):
        if value not in known:
            raise ModelError(f"{node.op}: {name} {value!r}; allowed: {', '.join(known)}")
    targets, classes, binary, labels = tree_ensemble.targets(node), 0, -1, ()
    # Integers of a regressor are compared as float64, those of a classifier as float32: as onnx.reference does both.
    dtype = "float64" if x.dtype in ("float64", "int32", "int64") or ensemble.wide else "float32"
    if node.op == "TreeEnsembleClassifier":
        aggregate, classes = "SUM", targets
        labels = tuple(node.attribute("classlabels_int64s", ()))
        if not labels:
            raise NotCompiled("string labels")
        if not ensemble.wide and x.dtype != "float64":
            dtype = "float32"
        weighted = set(node.attribute("class_ids", ()))
        if len(weighted) == 1 and targets <= 2:
            binary, classes = min(weighted), 2
            if targets == 1 and labels != (1,):
                raise NotCompiled(f"one label, {labels[0]}; compiled for 1")
            labels = labels if targets == 2 else (0, 1)
    base = node.attribute("base_values_as_tensor")
    given = node.attribute("base_values", ()) if base is None or not np.size(base) else np.asarray(base).reshape(-1).tolist()
    if len(given) not in (0, 1, targets):
        raise ModelError(f"{node.op}: found {len(given)} base_values for {targets} targets; allowed: none, one, or one for each")
    values = tuple(given) if len(given) == targets else (given or (0.0,))[:1] * targets
    out = x.dtype if node.op == "TreeEnsemble" else "float32"
    if out not in ("float32", "float64"):
        raise NotCompiled(f"input of {x.dtype}; this operator takes floats")
    return Form(x.dtype, dtype, out, aggregate, transform, targets, classes, binary, labels, tuple(map(float, values)))


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """[N, features] → [N, targets]; a classifier: int64 labels [N], float32 scores [N, classes]."""
    ensemble = tree_ensemble.read(node)
    x = required(inputs, 0)
    form = form_of(node, x, ensemble)
    scores = TensorType(form.out, (x.shape[0], form.classes or form.targets))
    return [TensorType("int64", (x.shape[0],)), scores] if form.classes else [scores]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One `trees` step; a block is a row."""
    x, ensemble = required(inputs, 0), tree_ensemble.read(node)
    form, features, rows = form_of(node, x, ensemble), x.shape[1], x.shape[0]
    plain = _values_in_leaves(form, ensemble)
    width = target.engine.tree_interleave or INTERLEAVE
    splits = _splits(node, features, form.dtype)
    mirrored = any(max(tree.slot, default=0) >= features for tree in splits)
    slots = 2 * features if mirrored else features
    tree_packing.check_size(splits, slots, form.dtype)
    lanes, groups = max(target.machine.lanes(form.dtype), 8), 2
    least = _tile_least(target.engine.tree_layout, splits, lanes * groups)
    count, padded = ensemble.count, tree_packing.padded(ensemble.count, width)

    def leaf_values() -> Array:
        return _leaf_sums(ensemble, form.dtype) if plain else np.arange(len(ensemble.offsets) - 1)

    @functools.cache
    def packed() -> tree_packing.Packed:
        held = leaf_values() if plain else leaf_values().astype({"float32": np.int32, "float64": np.int64}[form.dtype])
        return tree_packing.pack(splits, held.view(form.dtype), slots, width)

    @functools.cache
    def bits() -> tree_bits.Bits:
        return tree_bits.pack(splits if least else [], form.dtype)

    def base() -> Array:
        return np.array([float(count) if form.aggregate == "AVERAGE" else 1.0, form.base[0]] if plain else form.base, np.float64)

    def constant(name: str, make: Any) -> Packed:
        return Packed(f"{node.outputs[0] or node.outputs[-1]}:{width}:{least > 0}:{features}:{form.dtype}:{name}", make)

    labels, y = (outputs[0], optional(outputs, 1)) if form.classes else (None, outputs[0])
    scores = form.classes or form.targets
    written: tuple[Operand, Operand] = (
        labels or Scratch("labels", 8 * rows),
        y or Scratch("scores", rows * scores * np.dtype(form.out).itemsize),
    )
    item, tile_rows = np.dtype(form.dtype).itemsize, lanes * groups
    operands: tuple[Operand, ...] = (
        x,
        constant("nodes", lambda: packed().nodes),
        constant("starts", lambda: packed().starts),
        constant("base", base),
        constant("offsets", lambda: ensemble.offsets.astype(np.int64)),
        constant("targets", lambda: ensemble.targets),
        constant("weights", lambda: ensemble.weights),
        constant("labels", lambda: np.array(form.labels, np.int64)),
        constant("bit thresholds", lambda: bits().thresholds),
        constant("bit slots", lambda: bits().slots),
        constant("bit masks", lambda: bits().masks),
        constant("bit words", lambda: bits().words),
        constant("bit leaves", lambda: leaf_values()[bits().leaves].astype(form.dtype if plain else np.int32)),
        Scratch("row", item * (slots + 2), per_thread=True),
        Scratch("places", 4 * (padded + width), per_thread=True),
        Scratch("queue", 4 * (padded + 2 * width), per_thread=True),
        Scratch("sums", 8 * max(tile_rows, scores, form.targets), per_thread=True),
        Scratch("tile", item * slots * tile_rows if least else 1, per_thread=True),
        Scratch("found", 4 * count * tile_rows if least else 1, per_thread=True),
        *written,
    )
    statics = {
        "width": width,
        "bits": tree_packing.slot_bits(slots),
        "features": features,
        "mirrored": mirrored,
        "given": form.given,
        "dtype": form.dtype,
        "tile_lanes": lanes,
        "tile_groups": groups,
        "tile_least": least,
        "aggregate": form.aggregate,
        "transform": form.transform,
        "targets": 0 if plain else form.targets,
        "binary": form.binary,
        "classes": form.classes,
        "out": form.out,
    }
    words = tree_bits.size(splits)[1] if least else 0
    return [Step("trees", statics, operands, (padded, count, words), rows, 50 + rows * padded * TREE_NS, tuple(range(13, 21)))]


def _values_in_leaves(form: Form, ensemble: tree_ensemble.Ensemble) -> bool:
    """Whether the sum of the leaves' own values, each exact in the nodes' dtype, is the answer."""
    single = form.targets == 1 and not form.classes and form.transform == "NONE" and form.aggregate in ("SUM", "AVERAGE")
    exact = form.dtype == "float64" or ensemble.exact
    return single and exact and int(np.diff(ensemble.offsets).max(initial=0)) <= 1 and not np.isnan(ensemble.weights).any()


def _leaf_sums(ensemble: tree_ensemble.Ensemble, dtype: str) -> Array:
    values = np.zeros(len(ensemble.offsets) - 1, dtype)
    held = np.diff(ensemble.offsets) > 0
    values[held] = ensemble.weights[ensemble.offsets[:-1][held]]
    return values


def _splits(node: Node, features: int, dtype: str) -> list[tree_splits.Splits]:
    return _planted(tree_ensemble.Identity(node), features, dtype)


@functools.lru_cache(maxsize=4)
def _planted(key: tree_ensemble.Identity, features: int, dtype: str) -> list[tree_splits.Splits]:
    return tree_splits.plant(tree_ensemble.read(key.node), features, dtype)


def _tile_least(layout: str, splits: Sequence[tree_splits.Splits], tile_rows: int) -> int:
    """Rows from which a tile is cheaper than as many walks; 0 where it never is, or where the trees have no bit form."""
    if layout == "interleaved" or any(tree.shared for tree in splits):
        return 0
    if layout == "vector":
        return 1
    entries, words = tree_bits.size(splits)
    walks = sum(math.log2(len(tree.slot) + 1) for tree in splits) * TREE_NS / 6
    least = math.ceil((entries * ENTRY_NS + words * WORD_NS) / max(walks, 1.0))
    return least if least <= tile_rows else 0


OPERATORS = {("ai.onnx.ml", name): Operator(infer, lower) for name in ("TreeEnsembleRegressor", "TreeEnsembleClassifier", "TreeEnsemble")}
