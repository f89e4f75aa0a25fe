"""Tree ensembles: TreeEnsembleRegressor with one target. What is not compiled runs on the fallback."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops import tree_packing
from openinfer.ops._base import Alias, NotCompiled, Operator, Packed, Scratch, Step, Target, Value, required

INTERLEAVE = 12
TREE_NS = 8.0


def infer_regressor(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """[N, features] → [N, 1] float32."""
    x = required(inputs, 0)
    if x.dtype != "float32" or len(x.shape) != 2:
        raise NotCompiled(f"input of {x.dtype} {x.shape}; compiled for float32 rows")
    if node.attribute("n_targets", 1) != 1 or any(node.attribute("target_ids", ())):
        raise NotCompiled("several targets")
    if node.attribute("aggregate_function", "SUM") not in ("SUM", "AVERAGE"):
        raise NotCompiled(f"aggregate_function {node.attribute('aggregate_function')}")
    if node.attribute("post_transform", "NONE") != "NONE":
        raise NotCompiled(f"post_transform {node.attribute('post_transform')}")
    if "nodes_values_as_tensor" in node.attributes or "target_weights_as_tensor" in node.attributes:
        raise NotCompiled("float64 thresholds")
    return [TensorType("float32", (x.shape[0], 1))]


def lower_regressor(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One `trees` step; a block is a row."""
    x, y = required(inputs, 0), required(outputs, 0)
    features = x.shape[1]
    width = target.engine.tree_interleave or INTERLEAVE

    @functools.cache
    def trees() -> list[tree_packing.Tree]:
        return tree_packing.read_trees(node.attributes)

    tree_packing.check_compilable(trees(), features)

    @functools.cache
    def packed() -> tree_packing.Packed:
        return tree_packing.pack(trees(), features, width)

    def scale() -> Array:
        averaged = node.attribute("aggregate_function", "SUM") == "AVERAGE"
        base = node.attribute("base_values") or (0.0,)
        return np.array([1.0 / len(trees()) if averaged else 1.0, base[0]], np.float64)

    key = f"{node.outputs[0]}:{width}"
    count = len(set(node.attributes["nodes_treeids"]))
    padded = tree_packing.padded(count, width)
    operands = (
        x,
        Packed(f"{key}:nodes", lambda: packed().nodes),
        Packed(f"{key}:starts", lambda: packed().starts),
        Packed(f"{key}:plain", lambda: tree_packing.pack_plain(trees())[0]),
        Packed(f"{key}:plain starts", lambda: tree_packing.pack_plain(trees())[1]),
        Packed(f"{key}:scale", scale),
        Scratch("row", 4 * (features + 1), per_thread=True),
        Scratch("places", 4 * (padded + width), per_thread=True),
        Scratch("queue", 4 * (padded + 2 * width), per_thread=True),
        y,
    )
    cost = 50 + x.shape[0] * padded * TREE_NS
    statics = {"width": width, "bits": tree_packing.feature_bits(features), "features": features}
    return [Step("trees", statics, operands, (padded, count), x.shape[0], cost, (6, 7, 8, 9))]


OPERATORS = {("ai.onnx.ml", "TreeEnsembleRegressor"): Operator(infer_regressor, lower_regressor)}
