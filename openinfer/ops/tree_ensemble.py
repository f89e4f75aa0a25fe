"""Tree ensembles as ONNX writes them, read into one form and checked: `TreeEnsembleRegressor`, `TreeEnsembleClassifier`, `TreeEnsemble`.

Nothing here follows a chain of nodes: whether the nodes form trees is decided by counting parents, in time linear in the file's size.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import HostileModelError, ModelError
from openinfer.ir.graph import Array, Node

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER")
LEQ, LT, GTE, GT, EQ, NEQ, MEMBER = range(len(MODES))
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Branches and leaves, each numbered in the order of the file. A child or root is a branch's number, or `~number` of a leaf.

    Leaf i adds `weights[k]` to target `targets[k]` for k in offsets[i] … offsets[i + 1]. `sets` holds the members of BRANCH_MEMBER
    branches. `wide`: a threshold needs float64. `exact`: the weights are float32.
    """

    mode: Array
    feature: Array
    threshold: Array
    true: Array
    false: Array
    missing_true: Array
    sets: Mapping[int, Array]
    roots: Array
    offsets: Array
    targets: Array
    weights: Array
    wide: bool
    exact: bool

    @property
    def count(self) -> int:
        """The number of trees."""
        return len(self.roots)

    @property
    def features(self) -> int:
        """One more than the largest feature that a branch tests."""
        return int(self.feature.max(initial=-1)) + 1


class Identity:
    """A node's attributes as a cache key: the same object, not an equal one."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def __hash__(self) -> int:
        return id(self.node.attributes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and other.node.attributes is self.node.attributes


def read(node: Node) -> Ensemble:
    """The node's trees. Raises `HostileModelError` for cycles, missing children or roots, ids that are out of range or defined twice,
    columns of different lengths, `ModelError` for a mode that the standard does not know.
    """
    return _read(Identity(node))


@functools.lru_cache(maxsize=4)
def _read(key: Identity) -> Ensemble:
    node = key.node
    if node.op == "TreeEnsemble":
        return _read_indexed(node.attributes)
    return _read_named(node.attributes, "class" if node.op == "TreeEnsembleClassifier" else "target")


def targets(node: Node) -> int:
    """Targets, or classes with scores, that the leaves' weights may name."""
    if node.op == "TreeEnsembleClassifier":
        return max(len(node.attribute("classlabels_int64s", ())), len(node.attribute("classlabels_strings", ())))
    return int(node.attribute("n_targets", 1))


def check_targets(node: Node) -> None:
    """`HostileModelError` where a leaf names a target that the node does not have; also all that `read` raises."""
    ensemble, count = read(node), targets(node)
    low, high = int(ensemble.targets.min(initial=0)), int(ensemble.targets.max(initial=-1))
    if low < 0 or high >= count:
        raise HostileModelError(f"a leaf adds to target {low if low < 0 else high}; the node has {count}")


def check_features(node: Node, columns: int) -> None:
    """`HostileModelError` where a tree tests a feature that rows of `columns` values do not have."""
    if (features := read(node).features) > columns:
        raise HostileModelError(f"a tree tests feature {features - 1}; the input has {columns}")


def _column(attributes: Mapping[str, Any], name: str, length: int, dtype: Any, default: Any = None) -> Array:
    values = attributes.get(name)
    if values is None or (default is not None and not len(values)):
        if default is None and length:
            raise HostileModelError(f"a tree ensemble without {name}; it needs {length} entries")
        return np.full(length, 0 if default is None else default, dtype)
    column = np.asarray(values, dtype)
    if column.shape != (length,):
        raise HostileModelError(f"{name} has {column.size} entries, the others have {length}")
    return column


def _numbers(attributes: Mapping[str, Any], name: str, length: int) -> tuple[Array, bool]:
    """A column of numbers in float64 from the attribute `name` or `name_as_tensor`; whether float32 holds all of them."""
    tensor = attributes.get(f"{name}_as_tensor")
    given = {**attributes, name: tensor} if tensor is not None and np.size(tensor) else attributes
    column = _column(given, name, length, np.float64)
    with np.errstate(over="ignore"):
        narrow = column.astype(np.float32).astype(np.float64)
    return column, bool(np.array_equal(narrow, column, equal_nan=True))


def _read_named(attributes: Mapping[str, Any], prefix: str) -> Ensemble:
    """The form of ai.onnx.ml 1 and 3: nodes, leaves among them, are named by (tree id, node id)."""
    count = len(attributes.get("nodes_nodeids", ()))
    if not count:
        raise HostileModelError("a tree ensemble without nodes; it needs a root for each tree")
    tree = _column(attributes, "nodes_treeids", count, np.int64)
    name = _column(attributes, "nodes_nodeids", count, np.int64)
    modes = attributes.get("nodes_modes", ())
    if len(modes) != count:
        raise HostileModelError(f"nodes_modes has {len(modes)} entries, the others have {count}")
    codes = {"LEAF": -1, **{mode: code for code, mode in enumerate(MODES[:MEMBER])}}
    unknown = set(modes) - set(codes)
    if unknown:
        raise ModelError(f"a tree node of mode {min(unknown)!r}; allowed: {', '.join(codes)}")
    mode = np.array([codes[text] for text in modes], np.int8)
    place = _Names(tree, name)
    leaf = mode < 0
    branch = ~leaf
    number = np.where(leaf, ~(np.cumsum(leaf) - 1), np.cumsum(branch) - 1)
    true, false = (
        number[place.find(tree[branch], _column(attributes, column, count, np.int64)[branch], name[branch])]
        for column in ("nodes_truenodeids", "nodes_falsenodeids")
    )
    _, first = np.unique(tree, return_index=True)
    roots = number[np.sort(first)]
    threshold, narrow = _numbers(attributes, "nodes_values", count)
    total = len(attributes.get(f"{prefix}_nodeids", ()))
    weights, exact = _numbers(attributes, f"{prefix}_weights", total)
    owner_tree, owner_name = (_column(attributes, f"{prefix}_{column}", total, np.int64) for column in ("treeids", "nodeids"))
    owners = place.find(owner_tree, owner_name, None)
    target = _column(attributes, f"{prefix}_ids", total, np.int64)
    held = leaf[owners]
    # Weights of a branch are never reached.
    owners, target, weights = ~number[owners[held]], target[held], weights[held]
    order = np.argsort(owners, kind="stable")
    offsets = np.searchsorted(owners[order], np.arange(int(leaf.sum()) + 1))
    missing = _column(attributes, "nodes_missing_value_tracks_true", count, np.int64, 0) >= 1
    features = _column(attributes, "nodes_featureids", count, np.int64)
    return _checked(
        Ensemble(
            mode[branch],
            features[branch],
            threshold[branch],
            true,
            false,
            missing[branch],
            {},
            roots,
            offsets,
            target[order],
            weights[order],
            not narrow,
            exact,
        )
    )


class _Names:
    """(tree id, node id) → row."""

    def __init__(self, tree: Array, name: Array) -> None:
        self._trees, tree_code = np.unique(tree, return_inverse=True)
        self._names, name_code = np.unique(name, return_inverse=True)
        keys = tree_code * len(self._names) + name_code
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        twice = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if len(twice):
            row = self._order[twice[0]]
            raise HostileModelError(f"tree {tree[row]}: node {name[row]} is defined twice; every node has an id of its own")

    def find(self, tree: Array, name: Array, parent: Array | None) -> Array:
        """Rows of the named nodes."""
        tree_code = np.minimum(np.searchsorted(self._trees, tree), len(self._trees) - 1)
        name_code = np.minimum(np.searchsorted(self._names, name), len(self._names) - 1)
        keys = tree_code * len(self._names) + name_code
        slot = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        lost = np.flatnonzero((self._trees[tree_code] != tree) | (self._names[name_code] != name) | (self._keys[slot] != keys))
        if len(lost):
            i = lost[0]
            what = "a weight for node" if parent is None else f"node {parent[i]} has a child"
            raise HostileModelError(f"tree {tree[i]}: {what} {name[i]} that does not exist; every node that is named must be there")
        rows: Array = self._order[slot]
        return rows


def _read_indexed(attributes: Mapping[str, Any]) -> Ensemble:
    """The form of ai.onnx.ml 5: branches and leaves are named by position."""
    modes = np.asarray(attributes.get("nodes_modes", ()), np.int64).reshape(-1)
    count = len(modes)
    if count and not 0 <= modes.min() <= modes.max() < len(MODES):
        raise ModelError(f"a tree node of mode {modes.max()}; allowed: 0 to {len(MODES) - 1}")
    leaves = len(attributes.get("leaf_targetids", ()))
    target = _column(attributes, "leaf_targetids", leaves, np.int64)
    weights, exact = _numbers(attributes, "leaf_weights", leaves)
    threshold, narrow = _numbers(attributes, "nodes_splits", count)
    children = []
    for side in ("true", "false"):
        child = _column(attributes, f"nodes_{side}nodeids", count, np.int64)
        ends = _column(attributes, f"nodes_{side}leafs", count, np.int64) != 0
        lost = np.flatnonzero((child < 0) | (child >= np.where(ends, leaves, count)))
        if len(lost):
            i = lost[0]
            raise HostileModelError(f"node {i} has a child {child[i]} that does not exist; found {count} nodes and {leaves} leaves")
        children.append(np.where(ends, ~child, child))
    true, false = children
    roots = np.asarray(attributes.get("tree_roots", ()), np.int64)
    if not len(roots):
        raise HostileModelError("a tree ensemble without roots; it needs one for each tree")
    lost = np.flatnonzero((roots < 0) | (roots >= count))
    if len(lost):
        raise HostileModelError(f"a tree's root is node {roots[lost[0]]}, which does not exist; found {count} nodes")
    missing = _column(attributes, "nodes_missing_value_tracks_true", count, np.int64, 0) != 0
    features = _column(attributes, "nodes_featureids", count, np.int64)
    sets, narrow_sets = _sets(attributes, np.flatnonzero(modes == MEMBER))
    return _checked(
        Ensemble(
            modes.astype(np.int8),
            features,
            threshold,
            true,
            false,
            missing,
            sets,
            roots,
            np.arange(leaves + 1),
            target,
            weights,
            not (narrow and narrow_sets),
            exact,
        )
    )


def _sets(attributes: Mapping[str, Any], branches: Array) -> tuple[dict[int, Array], bool]:
    """Members of each BRANCH_MEMBER branch: lists in the branches' order, with NaN after each."""
    flat = np.asarray(attributes.get("membership_values", ()), np.float64).reshape(-1)
    ends = np.flatnonzero(np.isnan(flat))
    found = len(ends) + (1 if len(flat) and not np.isnan(flat[-1]) else 0)
    if found != len(branches):
        raise HostileModelError(f"membership_values has {found} sets, {len(branches)} nodes are BRANCH_MEMBER; it needs one for each")
    parts: Sequence[Array] = np.split(flat, ends + 1) if len(flat) else []
    sets = {int(branch): np.unique(part[~np.isnan(part)]) for branch, part in zip(branches, parts, strict=False)}
    return sets, bool(np.array_equal(flat.astype(np.float32).astype(np.float64), flat, equal_nan=True))


def _checked(ensemble: Ensemble) -> Ensemble:
    """The ensemble, where every branch has one parent, or none and is a root: what a root reaches is then a tree."""
    count = len(ensemble.mode)
    children = np.concatenate([ensemble.true, ensemble.false, ensemble.roots])
    parents = np.bincount(children[children >= 0], minlength=count)
    if (parents > 1).any():
        branch = int(np.argmax(parents > 1))
        raise HostileModelError(f"branch {branch} is reached twice; a tree has no cycles and no shared branches")
    if int(ensemble.feature.min(initial=0)) < 0:
        raise HostileModelError(f"a tree tests feature {ensemble.feature.min()}; allowed: 0 and more")
    return ensemble
