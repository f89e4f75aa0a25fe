"""An ONNX tree ensemble as LightGBM's model text, so that LightGBM can be raced on the very same trees."""

from __future__ import annotations

from typing import Any


def lightgbm_text(model: Any, features: int) -> str:
    """The model file of a single-target `TreeEnsembleRegressor` with only BRANCH_LEQ nodes."""
    node = next(node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    values = {a.name: list(a.ints) or list(a.floats) or list(a.strings) for a in node.attribute}
    trees: dict[int, dict[int, int]] = {}
    for position, (tree, identity) in enumerate(zip(values["nodes_treeids"], values["nodes_nodeids"], strict=True)):
        trees.setdefault(tree, {})[identity] = position
    targets = zip(values["target_treeids"], values["target_nodeids"], values["target_weights"], strict=True)
    weights = {(tree, identity): weight for tree, identity, weight in targets}
    blocks = [_tree(index, tree, positions, values, weights) for index, (tree, positions) in enumerate(trees.items())]
    names = " ".join(f"Column_{i}" for i in range(features))
    head = [
        "tree",
        "version=v4",
        "num_class=1",
        "num_tree_per_iteration=1",
        "label_index=0",
        f"max_feature_idx={features - 1}",
        "objective=regression",
        f"feature_names={names}",
        "feature_infos=" + " ".join(["[-1e300:1e300]"] * features),
        "tree_sizes=" + " ".join(str(len(block) + 1) for block in blocks),
        "",
    ]
    return "\n".join(head) + "\n" + "\n".join(blocks) + "\nend of trees\n\nparameters:\nend of parameters\n"


def _tree(index: int, tree: int, positions: dict[int, int], values: dict[str, Any], weights: dict[tuple[int, int], float]) -> str:
    modes, left, right = values["nodes_modes"], values["nodes_truenodeids"], values["nodes_falsenodeids"]
    inner = [identity for identity, position in positions.items() if modes[position] != b"LEAF"]
    leaves = [identity for identity, position in positions.items() if modes[position] == b"LEAF"]
    number = {identity: i for i, identity in enumerate(inner)} | {identity: -i - 1 for i, identity in enumerate(leaves)}

    def column(name: str, items: list[Any]) -> str:
        return f"{name}=" + " ".join(repr(item) if isinstance(item, float) else str(item) for item in items)

    at = [positions[identity] for identity in inner]
    zeros, ones = [0] * len(inner), [1] * len(leaves)
    return "\n".join(
        [
            f"Tree={index}",
            f"num_leaves={len(leaves)}",
            "num_cat=0",
            column("split_feature", [values["nodes_featureids"][p] for p in at]),
            column("split_gain", zeros),
            column("threshold", [float(values["nodes_values"][p]) for p in at]),
            column("decision_type", [2] * len(inner)),
            column("left_child", [number[left[p]] for p in at]),
            column("right_child", [number[right[p]] for p in at]),
            column("leaf_value", [float(weights[tree, identity]) for identity in leaves]),
            column("leaf_weight", ones),
            column("leaf_count", ones),
            column("internal_value", zeros),
            column("internal_weight", zeros),
            column("internal_count", [2] * len(inner)),
            "is_linear=0",
            "shrinkage=1",
            "",
            "",
        ]
    )
