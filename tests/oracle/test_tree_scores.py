"""Targets, aggregates, post-transforms, labels and sets of tree ensembles, against a plain NumPy evaluation and onnx.reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import openinfer
from openinfer.errors import HostileModelError, ModelError

ELEMENTS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64, "int32": TensorProto.INT32}
FEATURES = 4


def generator() -> np.random.Generator:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed)


def stump_forest(rng, trees, prefix, targets, wide=False, per_leaf=2):
    """Full trees of depth 3 whose leaves add to `per_leaf` random targets."""
    columns: dict[str, list] = {}

    def add(**row):
        for name, value in row.items():
            columns.setdefault(name, []).append(value)

    for tree in range(trees):
        for node in range(15):
            leaf = node >= 7
            add(
                nodes_treeids=tree,
                nodes_nodeids=node,
                nodes_featureids=int(rng.integers(FEATURES)),
                nodes_values=float(rng.standard_normal() if wide else np.float32(rng.standard_normal())),
                nodes_modes="LEAF" if leaf else "BRANCH_LEQ",
                nodes_truenodeids=0 if leaf else 2 * node + 1,
                nodes_falsenodeids=0 if leaf else 2 * node + 2,
                nodes_missing_value_tracks_true=int(rng.integers(2)),
            )
            for target in rng.choice(targets, min(per_leaf, targets), replace=False) if leaf else ():
                add(**{f"{prefix}_treeids": tree, f"{prefix}_nodeids": node, f"{prefix}_ids": int(target)})
                add(**{f"{prefix}_weights": float(np.float32(rng.standard_normal()))})
    if wide:
        for name in ("nodes_values", f"{prefix}_weights"):
            columns[f"{name}_as_tensor"] = numpy_helper.from_array(np.array(columns.pop(name)), name)
    return columns


def model_of(op, dtype, outputs, version=3, **attributes):
    node = helper.make_node(op, ["x"], [name for name, _ in outputs], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("x", ELEMENTS[dtype], ["n", FEATURES])],
        [helper.make_tensor_value_info(name, element, ["n"] if name == "label" else ["n", "c"]) for name, element in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)], ir_version=10)


def draw(rng, rows, dtype):
    x = (rng.standard_normal((rows, FEATURES)) * (1 if dtype.startswith("float") else 2)).astype(dtype)
    if dtype.startswith("float"):
        x[rng.random(x.shape) < 0.1] = np.nan
    return x


def leaves(columns, x):
    """The node that each tree ends in: [rows, trees]."""
    values = columns.get("nodes_values")
    values = numpy_helper.to_array(columns["nodes_values_as_tensor"]) if values is None else np.float32(values)
    found = np.zeros((len(x), len(columns["nodes_treeids"]) // 15), int)
    for r, row in enumerate(x):
        for tree in range(found.shape[1]):
            at = 0
            while at < 7:
                place = tree * 15 + at
                v = row[columns["nodes_featureids"][place]]
                true = columns["nodes_missing_value_tracks_true"][place] if np.isnan(v) else float(v) <= float(values[place])
                at = 2 * at + (1 if true else 2)
            found[r, tree] = at
    return found


def raw_scores(columns, prefix, x, targets, aggregate):
    weights = columns.get(f"{prefix}_weights")
    weights = numpy_helper.to_array(columns[f"{prefix}_weights_as_tensor"]) if weights is None else weights
    held: dict[tuple[int, int], list] = {}
    rows = (columns[f"{prefix}_{name}"] for name in ("treeids", "nodeids", "ids"))
    for tree, node, target, weight in zip(*rows, weights, strict=True):
        held.setdefault((tree, node), []).append((target, weight))
    found = leaves(columns, x)
    scores = np.zeros((len(x), targets))
    for r, row in enumerate(found):
        given = [pair for tree, node in enumerate(row) for pair in held[tree, node]]
        for target in range(targets):
            mine = [weight for t, weight in given if t == target]
            extreme = {"MIN": np.finfo(np.float32).max, "MAX": np.finfo(np.float32).min}.get(aggregate, 0.0)
            scores[r, target] = {"MIN": min, "MAX": max}[aggregate](mine, default=extreme) if aggregate in ("MIN", "MAX") else sum(mine)
    return scores / found.shape[1] if aggregate == "AVERAGE" else scores


def transformed(scores, transform):
    if transform == "LOGISTIC":
        return 1 / (1 + np.exp(-scores))
    if transform == "SOFTMAX":
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
    if transform == "SOFTMAX_ZERO":
        e = np.where(
            np.abs(scores) > 1e-7, np.exp(scores - scores.max(axis=1, keepdims=True)), scores * np.exp(-scores.max(axis=1, keepdims=True))
        )
        return e / e.sum(axis=1, keepdims=True)
    if transform == "PROBIT":
        z = 2 * scores - 1
        log = np.log((1 - z) * (1 + z))
        half = 2 / (np.pi * 0.147) + 0.5 * log
        return 1.41421356 * np.sign(z) * np.sqrt(np.sqrt(half * half - log / 0.147) - half)
    return scores


def close(found, expected, tolerance=1e-6):
    assert found.shape == expected.shape
    assert np.isfinite(expected).all()
    assert np.abs(found - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-3)


@pytest.mark.parametrize(
    ("dtype", "aggregate", "transform", "targets"),
    [
        ("float32", "SUM", "SOFTMAX", 3),
        ("float32", "MIN", "NONE", 1),
        ("float64", "AVERAGE", "NONE", 1),
        ("float64", "MAX", "LOGISTIC", 2),
        ("int64", "AVERAGE", "SOFTMAX_ZERO", 4),
    ],
)
def test_regressors(dtype, aggregate, transform, targets):
    rng = generator()
    columns = stump_forest(rng, 9, "target", targets, wide=dtype == "float64")
    base = rng.standard_normal(targets).astype(np.float32).tolist()
    model = model_of(
        "TreeEnsembleRegressor",
        dtype,
        [("y", TensorProto.FLOAT)],
        aggregate_function=aggregate,
        post_transform=transform,
        n_targets=targets,
        base_values=base,
        **columns,
    )
    x = draw(rng, 70, dtype)
    expected = transformed(raw_scores(columns, "target", x, targets, aggregate) + base, transform)
    engine = openinfer.load(model)
    y = engine.run({"x": x})["y"]
    assert not engine.statistics().fallback
    assert y.dtype == np.float32
    close(y, expected)
    for i in range(70):
        assert (engine.run({"x": x[i : i + 1]})["y"] == y[i : i + 1]).all()


def test_probit_of_a_probability():
    rng = generator()
    columns = stump_forest(rng, 5, "target", 2)
    columns["target_weights"] = rng.uniform(0.05, 0.15, len(columns["target_weights"])).astype(np.float32).tolist()
    model = model_of("TreeEnsembleRegressor", "float32", [("y", TensorProto.FLOAT)], post_transform="PROBIT", n_targets=2, **columns)
    x = draw(rng, 20, "float32")
    close(openinfer.load(model).run({"x": x})["y"], transformed(raw_scores(columns, "target", x, 2, "SUM"), "PROBIT"), 1e-5)


@pytest.mark.parametrize(
    ("dtype", "labels", "weighted", "transform"),
    [
        ("float32", [3, -7, 12], 3, "SOFTMAX"),
        ("float32", [10, 20], 1, "LOGISTIC"),
        ("float64", [0, 1], 1, "NONE"),
        ("int64", [5, 6, 7, 8], 4, "SOFTMAX_ZERO"),
        ("float32", [1], 1, "NONE"),
    ],
)
def test_classifiers(dtype, labels, weighted, transform):
    """A single class with weights makes two scores: 1 - s and s, or -s and s under the transforms that need signs."""
    rng = generator()
    columns = stump_forest(rng, 8, "class", weighted, wide=dtype == "float64")
    model = model_of(
        "TreeEnsembleClassifier",
        dtype,
        [("label", TensorProto.INT64), ("score", TensorProto.FLOAT)],
        post_transform=transform,
        classlabels_int64s=labels,
        **columns,
    )
    x = draw(rng, 50, dtype)
    scores = raw_scores(columns, "class", x, weighted, "SUM")
    if weighted == 1:
        scores = np.concatenate([1 - scores if transform == "NONE" else -scores, scores], axis=1)
    expected = transformed(scores, transform)
    engine = openinfer.load(model)
    found = engine.run({"x": x})
    assert not engine.statistics().fallback
    close(found["score"], expected)
    if transform.startswith("SOFTMAX"):
        assert np.abs(found["score"].sum(axis=1) - 1).max() <= 1e-6
    names = np.array(labels if len(labels) > 1 else [0, 1])
    assert found["label"].dtype == np.int64
    assert (found["label"] == names[found["score"].argmax(axis=1)]).all()
    if dtype == "float64":  # onnx.reference does not read tensors of thresholds
        return
    with np.errstate(all="ignore"):
        label, score = ReferenceEvaluator(model).run(None, {"x": x})
    close(found["score"], score.astype(np.float64), 1e-5)
    clear = np.abs(np.diff(np.sort(score, axis=1)[:, -2:], axis=1)[:, 0]) > 1e-5
    assert (found["label"] == label)[clear].all()


def test_string_labels_run_on_the_fallback():
    rng = generator()
    columns = stump_forest(rng, 3, "class", 2)
    outputs = [("label", TensorProto.STRING), ("score", TensorProto.FLOAT)]
    engine = openinfer.load(model_of("TreeEnsembleClassifier", "float32", outputs, classlabels_strings=["no", "yes"], **columns))
    found = engine.run({"x": draw(rng, 5, "float32")})
    assert set(found["label"].tolist()) <= {"no", "yes"}
    assert "string labels" in "".join(engine.statistics().fallback.values())


def indexed(rng, dtype="float32", **changes):
    """Two trees of ai.onnx.ml 5: x0 in {1, 3, -inf}, then x1 <= 0.5 or x2 != 2; and a set with one member alone."""
    kind = np.dtype(dtype)
    attributes = {
        "nodes_splits": numpy_helper.from_array(np.array([0.0, 0.5, 2.0, 0.0], kind)),
        "nodes_modes": numpy_helper.from_array(np.array([6, 0, 5, 6], np.uint8)),
        "nodes_featureids": [0, 1, 2, 3],
        "nodes_truenodeids": [1, 0, 2, 4],
        "nodes_falsenodeids": [2, 1, 3, 5],
        "nodes_trueleafs": [0, 1, 1, 1],
        "nodes_falseleafs": [0, 1, 1, 1],
        "nodes_missing_value_tracks_true": [int(v) for v in rng.integers(0, 2, 4)],
        "membership_values": numpy_helper.from_array(np.array([3.0, 1.0, -np.inf, np.nan, 0.0, np.nan], kind)),
        "leaf_targetids": [0, 1, 0, 1, 0, 1],
        "leaf_weights": numpy_helper.from_array(np.array([1, 2, 4, 8, 16, 32], kind)),
        "tree_roots": [0, 3],
        "n_targets": 2,
        "post_transform": 0,
        **changes,
    }
    return model_of("TreeEnsemble", dtype, [("y", ELEMENTS[dtype])], version=5, **attributes), attributes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sets_of_the_fifth_version(dtype):
    rng = generator()
    model, attributes = indexed(rng, dtype)
    x = rng.choice([0.0, 1.0, 2.0, 3.0, np.nan, -np.inf, np.inf, 0.5, 0.6], (200, FEATURES)).astype(dtype)
    engine = openinfer.load(model)
    y = engine.run({"x": x})["y"]
    assert not engine.statistics().fallback
    assert y.dtype == dtype
    tracks = attributes["nodes_missing_value_tracks_true"]
    for row, found in zip(x, y, strict=True):
        true = [row[0] in (1, 3, -np.inf), row[1] <= 0.5, row[2] != 2, row[3] == 0]
        true = [bool(tracks[i]) if np.isnan(row[i]) else true[i] for i in range(4)]
        expected = np.zeros(2)
        leaf = (0 if true[1] else 1) if true[0] else (2 if true[2] else 3)
        for reached in (leaf, 4 if true[3] else 5):
            expected[reached % 2] += 2.0**reached
        assert (found == expected).all(), row


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tree_roots": [9]}, HostileModelError, "node 9, which does not exist"),
        ({"tree_roots": [0, 0]}, HostileModelError, "reached twice"),
        ({"nodes_truenodeids": [0, 0, 2, 4]}, HostileModelError, "reached twice"),
        ({"nodes_truenodeids": [1, 0, 2, 77]}, HostileModelError, "child 77"),
        ({"leaf_targetids": [0, 1, 0, 1, 0, 2]}, HostileModelError, "target 2"),
        ({"membership_values": numpy_helper.from_array(np.float32([1.0, np.nan]))}, HostileModelError, "1 sets, 2 nodes"),
        ({"aggregate_function": 9}, ModelError, "aggregate_function 9"),
    ],
)
def test_hostile_trees_of_the_fifth_version(change, error, message):
    model, _ = indexed(np.random.default_rng(0), **change)
    with pytest.raises(error, match=message):
        openinfer.load(onnx.ModelProto.FromString(model.SerializeToString()))
