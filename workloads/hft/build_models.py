"""Trains the models of `hft` and writes them beside this file, with their held-out accuracy in workload.toml: `python build_models.py`.

Needs the extra `models`. The traces come from seeds that no split uses. Training is seeded; rebuilt models agree up to the libraries'
rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from openinfer.workloads.accuracy import Figure, bootstrap, record
from openinfer.workloads.hft.traffic import generate
from openinfer.workloads.trace import Trace
from sklearn.metrics import r2_score
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent
TRAINING, HELD_OUT = (9001, 9002, 9003), (9101, 9102)
REQUESTS = 20_000
TREES, LEAVES = 500, 63


def dataset(seeds: tuple[int, ...]) -> tuple[Any, Any]:
    """Features and labels of both regimes."""
    traces: list[Trace] = [generate(regime, REQUESTS, seed) for seed in seeds for regime in ("quiet", "burst")]
    return np.concatenate([trace.inputs["x"] for trace in traces]), np.concatenate([np.asarray(trace.labels) for trace in traces])


def train_mlp(x: Any, y: Any) -> onnx.ModelProto:
    """40-64-32-3 with ReLU and softmax; the scaling of the features is folded into the first layer."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    fitted = MLPClassifier((64, 32), batch_size=512, max_iter=25, early_stopping=True, random_state=1).fit((x - mean) / scale, y)
    weights, biases = [w.astype(np.float64) for w in fitted.coefs_], [b.astype(np.float64) for b in fitted.intercepts_]
    weights[0] = weights[0] / scale[:, None]
    biases[0] = biases[0] - mean @ weights[0]
    nodes, constants, value = [], [], "x"
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        constants += [
            numpy_helper.from_array(weight.astype(np.float32), f"weight{index}"),
            numpy_helper.from_array(bias.astype(np.float32), f"bias{index}"),
        ]
        nodes.append(helper.make_node("Gemm", [value, f"weight{index}", f"bias{index}"], [f"dense{index}"]))
        value = f"dense{index}"
        if index < len(weights) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"relu{index}"]))
            value = f"relu{index}"
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=-1))
    return model("tick_mlp", nodes, constants, ("probabilities", 3), [helper.make_opsetid("", 17)])


def train_gbdt(x: Any, y: Any) -> onnx.ModelProto:
    """500 trees of 63 leaves that predict the direction (-1, 0, 1) by squared error."""
    booster = lightgbm.train(
        {
            "objective": "regression",
            "num_leaves": LEAVES,
            "learning_rate": 0.03,
            "min_data_in_leaf": 40,
            "boost_from_average": False,
            "seed": 1,
            "deterministic": True,
            "num_threads": 2,
            "verbosity": -1,
        },
        lightgbm.Dataset(x.astype(np.float64), y - 1.0),
        TREES,
    )
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids",
            "nodes_nodeids",
            "nodes_featureids",
            "nodes_values",
            "nodes_modes",
            "nodes_truenodeids",
            "nodes_falsenodeids",
            "target_treeids",
            "target_nodeids",
            "target_ids",
            "target_weights",
        )
    }
    for tree, info in enumerate(booster.dump_model()["tree_info"]):
        add_node(columns, tree, info["tree_structure"], [0])
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["score"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        **columns,
    )
    return model("gbdt", [node], [], ("score", 1), [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)])


def add_node(columns: dict[str, list[Any]], tree: int, structure: dict[str, Any], counter: list[int]) -> int:
    """Append a node and what hangs below it; its id."""
    identity = counter[0]
    counter[0] += 1
    leaf = "leaf_value" in structure
    position = len(columns["nodes_nodeids"])
    feature, threshold = (0, np.float32(0)) if leaf else (structure["split_feature"], rounded_down(structure["threshold"]))
    for name, value in (
        ("nodes_treeids", tree),
        ("nodes_nodeids", identity),
        ("nodes_featureids", feature),
        ("nodes_values", float(threshold)),
        ("nodes_modes", "LEAF" if leaf else "BRANCH_LEQ"),
        ("nodes_truenodeids", 0),
        ("nodes_falsenodeids", 0),
    ):
        columns[name].append(value)
    if leaf:
        for name, value in (
            ("target_treeids", tree),
            ("target_nodeids", identity),
            ("target_ids", 0),
            ("target_weights", structure["leaf_value"]),
        ):
            columns[name].append(value)
    else:
        columns["nodes_truenodeids"][position] = add_node(columns, tree, structure["left_child"], counter)
        columns["nodes_falsenodeids"][position] = add_node(columns, tree, structure["right_child"], counter)
    return identity


def rounded_down(threshold: float) -> Any:
    """The largest float32 not above `threshold`: a float32 feature then takes the same branch as against the double."""
    nearest = np.float32(threshold)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest


def model(name: str, nodes: list[Any], constants: list[Any], output: tuple[str, int], opsets: list[Any]) -> onnx.ModelProto:
    """A checked model with a symbolic batch."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 40])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["batch", output[1]])],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="openinfer")
    onnx.checker.check_model(proto)
    return proto


def main() -> None:
    """Train, write, measure."""
    from openinfer.engine import load

    x, y = dataset(TRAINING)
    held_x, held_y = dataset(HELD_OUT)
    print(f"{len(x)} rows, label shares {np.bincount(y) / len(y)}")
    figures = {}
    for name, train in (("tick_mlp", train_mlp), ("gbdt", train_gbdt)):
        path = HERE / f"{name}.onnx"
        onnx.save(train(x, y), path)
        (output,) = load(path).run({"x": held_x}).values()
        figures[name] = score(name, output, held_y)
        print(name, path.stat().st_size, "bytes, held-out", figures[name])
    record(HERE / "workload.toml", figures)


def score(name: str, output: Any, labels: Any) -> Figure:
    """Accuracy (tick_mlp) or R² (gbdt) with its bootstrap interval over blocks of 1,000 consecutive requests."""

    def measure(index: Any) -> float:
        if name == "tick_mlp":
            return float((output[index].argmax(1) == labels[index]).mean())
        return float(r2_score(labels[index] - 1.0, output[index, 0]))

    return bootstrap(measure, len(labels), 1000)


if __name__ == "__main__":
    main()
