"""Trains the models of `security` and writes them beside this file, with their accuracy in workload.toml.

    python build_models.py [MODEL …]

Needs the extra `models`. The traces come from seeds that no split uses. Training is seeded; rebuilt models agree up to torch's rounding.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from openinfer.workloads.security import byte_network
from openinfer.workloads.security.damped import FEATURES
from openinfer.workloads.security.hostile import HOSTILE, detected
from openinfer.workloads.security.packets import BENIGN
from openinfer.workloads.security.traffic import PLACES, generate

from openinfer.engine import load

HERE = Path(__file__).parent
TRAINING, HELD_OUT = (9001, 9002, 9003), (9101, 9102, 9103, 9104, 9105, 9106)
REQUESTS = 15_000
LIMIT = 8.0  # standard deviations; whatever lies farther out, infinity included, counts as that
FALSE_ALARMS = 0.01


def dataset(seeds: tuple[int, ...]) -> tuple[Any, Any]:
    """Features and labels of both regimes."""
    traces = [generate(regime, REQUESTS, seed) for seed in seeds for regime in PLACES]
    return np.concatenate([trace.inputs["x"] for trace in traces]), np.concatenate([np.asarray(trace.labels) for trace in traces])


def train_perceptron(x: Any, y: Any) -> onnx.ModelProto:
    """100-128-64-5 with ReLU and softmax: probabilities of benign and of the four attacks."""
    known = y < HOSTILE
    front, z = standardised(x[known])
    layers = fitted((FEATURES, 128, 64, 5), z, torch.from_numpy(y[known]), torch.nn.functional.cross_entropy, 12)
    nodes, constants, value = dense(layers, front)
    nodes.append(helper.make_node("Softmax", [value], ["probabilities"], axis=-1))
    return model("flow_perceptron", nodes, constants, ("probabilities", 5))


def train_autoencoder(x: Any, y: Any) -> onnx.ModelProto:
    """100-64-32-8-32-64-100 with ReLU, trained on benign packets only; it answers the mean squared error of what it rebuilds."""
    front, z = standardised(x[y == BENIGN])
    layers = fitted((FEATURES, 64, 32, 8, 32, 64, FEATURES), z, z, torch.nn.functional.mse_loss, 25)
    nodes, constants, value = dense(layers, front)
    nodes += [
        helper.make_node("Sub", [value, "limited"], ["difference"]),
        helper.make_node("Mul", ["difference", "difference"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["error"], axes=[-1], keepdims=1),
    ]
    return model("autoencoder", nodes, constants, ("error", 1))


def standardised(x: Any) -> tuple[tuple[list[Any], list[Any]], Any]:
    """The nodes and constants that scale `x` and limit it to `LIMIT`, and the rows of `x` so treated."""
    mean, deviation = x.mean(0, dtype=np.float64), np.maximum(x.std(0, dtype=np.float64), 0.05)
    scale, shift = (1 / deviation).astype(np.float32), (-mean / deviation).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["shifted"]),
        helper.make_node("Clip", ["shifted", "lowest", "highest"], ["limited"]),
    ]
    values = {"scale": scale, "shift": shift, "lowest": np.float32(-LIMIT), "highest": np.float32(LIMIT)}
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    return (nodes, constants), torch.from_numpy(np.clip(x * scale + shift, -LIMIT, LIMIT))


def fitted(sizes: tuple[int, ...], z: Any, target: Any, loss: Callable[..., Any], epochs: int) -> list[Any]:
    """Dense layers with ReLU between them, trained by Adam with a rate that falls to nothing."""
    torch.manual_seed(1)
    layers = [torch.nn.Linear(rows, columns) for rows, columns in itertools.pairwise(sizes)]
    network = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())][:-1])
    train(network, z, target, loss, epochs, 512)
    return layers


def train(network: Any, inputs: Any, target: Any, loss: Callable[..., Any], epochs: int, batch: int) -> None:
    """Adam, a rate of 0.002 that falls along a cosine."""
    steps = epochs * -(-len(inputs) // batch)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(batch):
            optimizer.zero_grad()
            loss(network(inputs[rows]), target[rows]).backward()
            optimizer.step()
            schedule.step()


def dense(layers: list[Any], front: tuple[list[Any], list[Any]]) -> tuple[list[Any], list[Any], str]:
    """Nodes and constants of the layers behind `front`, and the name of the last value."""
    nodes, constants, value = [*front[0]], [*front[1]], "limited"
    for index, layer in enumerate(layers):
        weight, bias = layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy()
        constants += [numpy_helper.from_array(weight, f"weight{index}"), numpy_helper.from_array(bias, f"bias{index}")]
        nodes.append(helper.make_node("Gemm", [value, f"weight{index}", f"bias{index}"], [f"dense{index}"]))
        value = f"dense{index}"
        if index < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"relu{index}"]))
            value = f"relu{index}"
    return nodes, constants, value


def model(name: str, nodes: list[Any], constants: list[Any], output: tuple[str, int]) -> onnx.ModelProto:
    """A checked model with a symbolic batch."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])]
    outputs = [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, ["batch", output[1]])]
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="openinfer")
    onnx.checker.check_model(proto)
    return proto


def detection(score: Any, labels: Any, blocks: int) -> tuple[float, float, float]:
    """Share of each attack above the score that `FALSE_ALARMS` of the benign exceed, the mean of the attacks, with a 95% bootstrap interval
    over that many equal blocks of consecutive requests: whole traces for packets, since a trace holds few episodes and each has its pace.
    """
    generator = np.random.default_rng(0)
    parts = np.array_split(np.arange(len(score)), blocks)
    draws = [np.concatenate([parts[i] for i in generator.integers(0, blocks, blocks)]) for _ in range(200)]
    low, high = np.percentile([detected(score[rows], labels[rows], FALSE_ALARMS) for rows in draws], [2.5, 97.5])
    return detected(score, labels, FALSE_ALARMS), float(low), float(high)


def main() -> None:
    """Train, write, measure; all models or those that are named."""
    torch.set_num_threads(2)
    wanted = sys.argv[1:] or ["flow_perceptron", "autoencoder", "byte_network"]
    figures = {}
    flows: dict[str, tuple[Callable[[Any, Any], onnx.ModelProto], Callable[[Any], Any]]] = {
        "flow_perceptron": (train_perceptron, lambda y: 1 - y["probabilities"][:, 0]),
        "autoencoder": (train_autoencoder, lambda y: y["error"][:, 0]),
    }
    data = (dataset(TRAINING), dataset(HELD_OUT)) if set(wanted) & set(flows) else None
    for name in wanted:
        begin, path = time.monotonic(), HERE / f"{name}.onnx"
        if name in flows and data is not None:
            (x, y), (held_x, held_y) = data
            build, score = flows[name]
            onnx.save(build(x, y), path)
            known = held_y < HOSTILE
            with load(path) as engine:
                figures[name] = detection(score(engine.run({"x": held_x[known]})), held_y[known], len(HELD_OUT) * len(PLACES))
        else:
            figures[name] = byte_network.build(path, train, detection)
        print(f"{name}: {path.stat().st_size} bytes, {time.monotonic() - begin:.0f} s, held-out {figures[name]}")
    record(figures)


def record(figures: dict[str, tuple[float, float, float]]) -> None:
    """Put the figures into workload.toml."""
    path = HERE / "workload.toml"
    text = path.read_text(encoding="utf-8")
    for name, (value, low, high) in figures.items():
        section = rf"(\[models\.{name}\][^\[]*?)accuracy = [^\n]*\naccuracy_interval = [^\n]*"
        text = re.sub(section, rf"\g<1>accuracy = {value:.4f}\naccuracy_interval = [{low:.4f}, {high:.4f}]", text, flags=re.S)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
