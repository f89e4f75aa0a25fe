"""Tree ensembles against a plain NumPy walk over the model's own attributes: the very leaf, for every tree and row."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import tree_regressor
from onnx import helper
from openinfer.workloads import registry

import openinfer
from openinfer.errors import HostileModelError


def ensemble(rng: np.random.Generator, trees: int, features: int, modes: tuple[str, ...], tracks: bool, depth: int = 6) -> onnx.ModelProto:
    """Random binary trees of mixed depth."""
    names = (
        "nodes_treeids",
        "nodes_nodeids",
        "nodes_featureids",
        "nodes_values",
        "nodes_modes",
        "nodes_truenodeids",
        "nodes_falsenodeids",
        "nodes_missing_value_tracks_true",
        "target_treeids",
        "target_nodeids",
        "target_ids",
        "target_weights",
    )
    columns: dict[str, list] = {name: [] for name in names}
    specials = [0.0, -0.0, np.inf, 1e-40, -1e-40, 1.0, -1.0]
    for tree in range(trees):
        counter = [0]

        def grow(depth: int, tree: int = tree, counter: list[int] = counter) -> int:
            node, position = counter[0], len(columns["nodes_nodeids"])
            counter[0] += 1
            leaf = depth == 0 or rng.random() < 0.2
            threshold = float(np.float32(rng.choice(specials) if rng.random() < 0.3 else rng.standard_normal()))
            mode, tracked = "LEAF" if leaf else str(rng.choice(modes)), int(tracks and rng.random() < 0.5)
            row = (tree, node, int(rng.integers(features)), threshold, mode, 0, 0, tracked)
            for name, value in zip(names[:8], row, strict=True):
                columns[name].append(value)
            if leaf:
                for name, value in zip(names[8:], (tree, node, 0, float(np.float32(rng.standard_normal()))), strict=True):
                    columns[name].append(value)
            else:
                columns["nodes_truenodeids"][position] = grow(depth - 1)
                columns["nodes_falsenodeids"][position] = grow(depth - 1)
            return node

        grow(int(rng.integers(0, depth + 1)))
    return wrap(columns, features)


def wrap(columns: dict[str, list], features: int) -> onnx.ModelProto:
    return tree_regressor(columns, features, base_values=[0.25])


def walk(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Sums in float64, by the rules of the operator's text."""
    a = {item.name: helper.get_attribute_value(item) for item in model.graph.node[0].attribute}
    place = {(t, n): i for i, (t, n) in enumerate(zip(a["nodes_treeids"], a["nodes_nodeids"], strict=True))}
    weights = dict(zip(zip(a["target_treeids"], a["target_nodeids"], strict=True), a["target_weights"], strict=True))
    tests = {
        b"BRANCH_LEQ": np.less_equal,
        b"BRANCH_LT": np.less,
        b"BRANCH_GT": np.greater,
        b"BRANCH_GTE": np.greater_equal,
        b"BRANCH_EQ": np.equal,
        b"BRANCH_NEQ": np.not_equal,
    }
    sums = np.full(len(x), 0.25)
    for r, row in enumerate(x):
        for tree in sorted(set(a["nodes_treeids"])):
            at = place[tree, 0]
            while a["nodes_modes"][at] != b"LEAF":
                value, threshold = row[a["nodes_featureids"][at]], np.float32(a["nodes_values"][at])
                true = bool(a["nodes_missing_value_tracks_true"][at]) if np.isnan(value) else tests[a["nodes_modes"][at]](value, threshold)
                at = place[tree, a["nodes_truenodeids" if true else "nodes_falsenodeids"][at]]
            sums[r] += weights[tree, a["nodes_nodeids"][at]]
    return sums


@pytest.mark.parametrize(
    "modes",
    [
        ("BRANCH_LEQ",),
        ("BRANCH_LT", "BRANCH_GTE"),
        ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GT", "BRANCH_GTE", "BRANCH_EQ", "BRANCH_NEQ"),
    ],
)
@pytest.mark.parametrize("tracks", [False, True])
def test_every_row_reaches_its_leaves(modes, tracks):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    rng = np.random.default_rng(seed)
    model = ensemble(rng, 37, 5, modes, tracks)
    x = rng.standard_normal((60, 5)).astype(np.float32)
    x[rng.random(x.shape) < 0.15] = np.inf
    x[rng.random(x.shape) < 0.15] = -0.0
    x[rng.random(x.shape) < 0.1] = 1e-40
    x[rng.random(x.shape) < 0.1] = 1.0
    x[::7, 2] = np.nan
    engine = openinfer.load(model)
    assert not engine.statistics().fallback
    y = engine.run({"x": x})["y"][:, 0]
    expected = walk(model, x)
    assert np.abs(y - expected).max() <= 1e-6 * np.abs(expected).max()
    for i in range(0, 60, 9):
        assert engine.run({"x": x[i : i + 1]})["y"][0, 0] == y[i]
    for knobs in (
        {"tree_interleave": 1},
        {"tree_interleave": 7},
        {"tree_layout": "interleaved"},
        {"tree_layout": "vector"},
        {"threads": 2},
    ):
        with openinfer.load(model, {"engine": knobs}) as other:
            assert (other.run({"x": x})["y"][:, 0] == y).all(), knobs


def test_the_gbdt_of_hft_agrees_with_lightgbm():
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed; pip install '.[test]'")
    from openinfer.workloads.lightgbm_text import lightgbm_text

    workload = registry.get("hft")
    model = onnx.load(workload.model_path("gbdt"))
    x = workload.traces("held_out", 500)[0].inputs["x"]
    expected = lightgbm.Booster(model_str=lightgbm_text(model, 40)).predict(x.astype(np.float64))
    y = openinfer.load(model).run({"x": x})["score"][:, 0]
    assert np.abs(y - expected).max() <= 1e-6 * np.abs(expected).max()


def test_trees_of_many_leaves_in_bits():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    rng = np.random.default_rng(seed)
    model = ensemble(rng, 9, 6, ("BRANCH_LEQ", "BRANCH_GT"), True, depth=10)
    x = rng.standard_normal((45, 6)).astype(np.float32)
    x[::5, 1] = np.nan
    expected = walk(model, x)
    for layout in ("vector", "interleaved"):
        y = openinfer.load(model, {"engine": {"tree_layout": layout}}).run({"x": x})["y"][:, 0]
        assert np.abs(y - expected).max() <= 1e-6 * np.abs(expected).max(), layout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodes_truenodeids": [0, 0, 0]}, "reached twice"),
        ({"nodes_truenodeids": [7, 0, 0]}, "does not exist"),
        ({"nodes_featureids": [9, 0, 0]}, "feature 9"),
        ({"nodes_featureids": [-1, 0, 0]}, "feature -1"),
        ({"nodes_nodeids": [0, 1, 1]}, "defined twice"),
        ({"nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"], "nodes_truenodeids": [1, 1, 0], "nodes_falsenodeids": [2, 2, 0]}, "twice"),
        ({"nodes_values": [0.5]}, "nodes_values has 1 entries"),
        ({"target_nodeids": [1, 5]}, "weight for node 5"),
        ({"target_ids": [0, 3]}, "target 3"),
    ],
)
def test_hostile_trees_are_refused(change, message):
    columns = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
    }
    with pytest.raises(HostileModelError, match=message):
        openinfer.load(wrap({**columns, **change}, 2))
