"""Each pass rewrites what it should, leaves the rest, and keeps the result."""

from __future__ import annotations

import numpy as np
from models import mlp, model
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import openinfer
from openinfer.frontend.onnx_model import read
from openinfer.passes.eliminate_dead import eliminate_dead
from openinfer.passes.fold_batch_norm import fold_batch_norm
from openinfer.passes.fold_constants import fold_constants
from openinfer.passes.fuse_activation import fuse_activation
from openinfer.passes.fuse_bias import fuse_bias
from openinfer.runtime.fallback import Fallback

F = TensorProto.FLOAT


def test_dead_nodes_go():
    graph = read(
        model([helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["unused"])], {"x": (F, [2])}, {"y": (F, [2])})
    )
    assert [node.op for node in eliminate_dead(graph).nodes] == ["Relu"]


def test_constants_fold_to_their_value():
    graph = read(
        model(
            [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Mul", ["x", "c"], ["y"])],
            {"x": (F, [2])},
            {"y": (F, [2])},
            {"a": np.float32([1, 2]), "b": np.float32([10, 20])},
        )
    )
    folded = fold_constants(graph, Fallback().evaluate)
    assert [node.op for node in folded.nodes] == ["Mul"]
    assert folded.constants["c"].tolist() == [11, 22]


def test_activations_and_biases_fuse_only_where_nobody_else_reads():
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["s"]), helper.make_node("Relu", ["s"], ["y"])],
        {"x": (F, ["n", 4])},
        {"y": (F, ["n", 3])},
        {"w": np.ones((4, 3), np.float32), "b": np.float32([1, 2, 3])},
    )
    fused = fuse_activation(fuse_bias(read(proto)), {"MatMul": ("Relu",)})
    assert [(node.op, len(node.inputs), node.attribute("activation")) for node in fused.nodes] == [("MatMul", 3, "Relu")]
    x = np.random.default_rng(3).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(openinfer.load(proto).run({"x": x})["y"], ReferenceEvaluator(proto).run(None, {"x": x})[0], rtol=1e-5)
    kept = read(
        model(
            [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
            {"x": (F, ["n", 4])},
            {"y": (F, ["n", 3]), "h": (F, ["n", 3])},
            {"w": np.ones((4, 3), np.float32)},
        )
    )
    assert len(fuse_activation(kept, {"MatMul": ("Relu",)}).nodes) == 2


def test_batch_norm_folds_into_the_convolution():
    rng = np.random.default_rng(7)
    constants = {"w": rng.standard_normal((3, 2, 3, 3)).astype(np.float32)}
    constants |= {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    proto = model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["y"]),
        ],
        {"x": (F, [1, 2, 5, 5])},
        {"y": (F, [1, 3, 3, 3])},
        constants,
    )
    folded = fold_batch_norm(read(proto))
    assert [node.op for node in folded.nodes] == ["Conv"]
    x = rng.standard_normal((1, 2, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(
        Fallback().evaluate(folded.nodes[0], [x, *(folded.constants[name] for name in folded.nodes[0].inputs[1:])])[0],
        ReferenceEvaluator(proto).run(None, {"x": x})[0],
        rtol=1e-4,
        atol=1e-5,
    )


def test_precision_runs_inside_and_keeps_the_edges():
    proto = mlp()
    x = np.random.default_rng(2).standard_normal((4, 40)).astype(np.float32)
    wide = openinfer.load(proto, {"engine": {"precision": "float64"}}).run({"x": x})["probabilities"]
    narrow = openinfer.load(proto).run({"x": x})["probabilities"]
    assert wide.dtype == np.float32
    assert 0 < np.abs(wide - narrow).max() < 1e-5


def test_folded_weights_and_casts_take_free_names():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    rng = np.random.default_rng(seed)
    norm = {name: rng.uniform(0.5, 2, 3).astype(np.float32) for name in ("scale", "shift", "mean", "variance")}
    proto = model(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("BatchNormalization", ["c", *norm], ["y"]),
            helper.make_node("Add", ["y", "y.bias"], ["s"]),
            helper.make_node("Mul", ["s", "y.weight"], ["z"]),
            helper.make_node("Add", ["x.float64", "z.float64"], ["t"]),
        ],
        {"x": (F, [1, 2, 4, 4])},
        {"z": (F, [1, 3, 4, 4]), "t": (F, [2])},
        {
            "w": rng.standard_normal((3, 2, 1, 1)).astype(np.float32),
            **norm,
            "y.bias": np.float32(3),
            "y.weight": np.float32(-2),
            "x.float64": np.float32([1, 2]),
            "z.float64": np.float32([3, 4]),
        },
    )
    x = rng.standard_normal((1, 2, 4, 4)).astype(np.float32)
    exact = ReferenceEvaluator(proto).run(None, {"x": x})
    for precision in ("model", "float64"):
        found = openinfer.load(proto, {"engine": {"precision": precision}}).run({"x": x})
        np.testing.assert_allclose(found["z"], exact[0], rtol=1e-4, atol=1e-5, err_msg=precision)
        assert (found["t"] == exact[1]).all()
