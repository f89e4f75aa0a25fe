"""Tree ensembles as compact interleaved nodes. Pure NumPy, once per load.

A node is 8 bytes: float32 threshold, and a uint32 whose low bits are the feature and whose high bits are the first child. The children of
a node are neighbours: the walk goes to `child + (x[feature] > threshold)`. A leaf tests the extra feature that always holds -inf, so it
stays where it is whatever its threshold, and its threshold is its value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import HostileModelError
from openinfer.ir.graph import Array
from openinfer.ops._base import NotCompiled

NODE = np.dtype([("threshold", np.float32), ("link", np.uint32)])


def feature_bits(features: int) -> int:
    """Low bits of a link that hold a feature, the leaves' extra one included."""
    return max(1, features.bit_length())


@dataclasses.dataclass(frozen=True)
class Tree:
    """One tree in ONNX's terms: node arrays in file order, with positions instead of ids."""

    modes: Sequence[str]
    features: Sequence[int]
    thresholds: Sequence[float]
    true: Sequence[int]
    false: Sequence[int]
    tracks_true: Sequence[int]
    values: Sequence[float]


def read_trees(attributes: Mapping[str, Any]) -> list[Tree]:
    """The trees of a single-target TreeEnsembleRegressor, checked: every child exists, nothing is reached twice.

    Raises `HostileModelError` for a cycle or a missing child.
    """
    tree_of, node_of = attributes["nodes_treeids"], attributes["nodes_nodeids"]
    rows: dict[int, dict[int, int]] = {}
    for row, (tree, node) in enumerate(zip(tree_of, node_of, strict=True)):
        if rows.setdefault(tree, {}).setdefault(node, row) != row:
            raise HostileModelError(f"tree {tree}: node {node} is defined twice")
    weights: dict[tuple[int, int], float] = {}
    for tree, node, weight in zip(attributes["target_treeids"], attributes["target_nodeids"], attributes["target_weights"], strict=True):
        weights[tree, node] = weights.get((tree, node), 0.0) + weight
    tracks = attributes.get("nodes_missing_value_tracks_true") or (0,) * len(tree_of)
    return [_read_tree(tree, ids, attributes, weights, tracks) for tree, ids in rows.items()]


def _read_tree(
    tree: int, ids: Mapping[int, int], attributes: Mapping[str, Any], weights: Mapping[tuple[int, int], float], tracks: Sequence[int]
) -> Tree:
    order = list(ids.values())
    modes = [attributes["nodes_modes"][row] for row in order]
    place = {node: position for position, node in enumerate(ids)}
    children: list[list[int]] = []
    for name in ("nodes_truenodeids", "nodes_falsenodeids"):
        column = []
        for row, mode in zip(order, modes, strict=True):
            child = attributes[name][row]
            if mode != "LEAF" and child not in place:
                raise HostileModelError(f"tree {tree}: node {attributes['nodes_nodeids'][row]} has a child {child} that does not exist")
            column.append(place.get(child, 0))
        children.append(column)
    reached = {0}
    frontier = [0]
    while frontier:
        node = frontier.pop()
        if modes[node] != "LEAF":
            for child in (children[0][node], children[1][node]):
                if child in reached:
                    raise HostileModelError(f"tree {tree}: a node is reached twice; a tree has no cycles")
                reached.add(child)
                frontier.append(child)
    return Tree(
        modes,
        [attributes["nodes_featureids"][row] for row in order],
        [attributes["nodes_values"][row] for row in order],
        children[0],
        children[1],
        [tracks[row] for row in order],
        [weights.get((tree, node), 0.0) for node in ids],
    )


def check_compilable(trees: Sequence[Tree], features: int) -> None:
    """`NotCompiled` for what the compact node cannot say, `HostileModelError` for a feature that the input does not have."""
    total, limit = sum(len(tree.modes) + 1 for tree in trees), 1 << (32 - feature_bits(features))
    if total >= limit:
        raise NotCompiled(f"{total} nodes over {features} features; compact nodes hold fewer than {limit}")
    for tree in trees:
        for mode, feature, threshold in zip(tree.modes, tree.features, tree.thresholds, strict=True):
            if mode == "LEAF":
                continue
            if not 0 <= feature < features:
                raise HostileModelError(f"a tree tests feature {feature}; the input has {features}")
            if mode not in ("BRANCH_LEQ", "BRANCH_GT", "BRANCH_LT", "BRANCH_GTE"):
                raise NotCompiled(f"nodes of mode {mode}")
            if threshold != threshold or (mode in ("BRANCH_LT", "BRANCH_GTE") and threshold == -np.inf):
                raise NotCompiled(f"a {mode} node with threshold {threshold}")
        if any(value != value for value in tree.values):
            raise NotCompiled("a leaf that holds NaN")


@dataclasses.dataclass(frozen=True)
class Packed:
    """`nodes` of all trees and, last, one lone leaf of value 0; `starts`: the root of each tree, then `width` times the lone leaf.

    `count` is the number of trees, empty ones that fill the last group of `width` included.
    """

    nodes: Array
    starts: Array
    count: int


def padded(trees: int, width: int) -> int:
    """The number of trees in whole groups."""
    return -(-trees // width) * width


def pack(trees: Sequence[Tree], features: int, width: int) -> Packed:
    """Trees in the order of the file, in whole groups of `width`."""
    shift = feature_bits(features)
    laid = [_lay_out(tree, features) for tree in trees]
    starts = np.cumsum([0, *(len(nodes) for nodes in laid)])
    for nodes, start in zip(laid, starts.tolist(), strict=False):
        nodes["link"] += np.uint32(start << shift)
    lone = int(starts[-1])
    count = padded(len(trees), width)
    laid.append(np.array([(0.0, features | lone << shift)], NODE))
    roots = np.concatenate([starts[:-1], np.full(count - len(trees) + width, lone)])
    return Packed(np.concatenate(laid), roots.astype(np.int32), count)


def _lay_out(tree: Tree, features: int) -> Array:
    """Breadth-first nodes with neighbouring children."""
    nodes, shift = np.zeros(len(tree.modes) + 1, NODE), feature_bits(features)
    level, used = [(0, 0)], 1
    while level:
        below: list[tuple[int, int]] = []
        for source, place in level:
            mode, threshold = tree.modes[source], np.float32(tree.thresholds[source])
            if mode == "LEAF":
                nodes[place] = (tree.values[source], features | place << shift)
                continue
            low, high = tree.true[source], tree.false[source]
            if mode in ("BRANCH_GT", "BRANCH_GTE"):
                low, high = high, low
            if mode in ("BRANCH_LT", "BRANCH_GTE"):
                threshold = np.nextafter(threshold, np.float32(-np.inf))
            nodes[place] = (threshold, tree.features[source] | used << shift)
            below += [(low, used), (high, used + 1)]
            used += 2
        level = below
    return nodes[:used]


def pack_plain(trees: Sequence[Tree]) -> tuple[Array, Array]:
    """The trees as written, for rows that hold NaN: [nodes, 7] float64 (mode, feature, threshold, true, false, NaN goes to true,
    value), starts.
    """
    modes = {"LEAF": 0, "BRANCH_LEQ": 1, "BRANCH_LT": 2, "BRANCH_GTE": 3, "BRANCH_GT": 4}
    rows, starts = [], [0]
    for tree in trees:
        rows += list(
            zip(
                (modes[mode] for mode in tree.modes),
                tree.features,
                tree.thresholds,
                tree.true,
                tree.false,
                tree.tracks_true,
                tree.values,
                strict=True,
            )
        )
        starts.append(len(rows))
    return np.array(rows, np.float64), np.array(starts[:-1], np.int64)
