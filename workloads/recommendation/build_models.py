"""Trains the DLRM of `recommendation` and writes it beside this file, with its held-out AUC in workload.toml: `python build_models.py`.

Needs the extra `models`. A few minutes on two cores. Rows come from seeds that no split uses. Training is seeded; a rebuilt model agrees up
to the libraries' rounding.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from openinfer.workloads.recommendation.population import DENSE, ROWS, TABLES, auc, items, population, users

HERE = Path(__file__).parent
WIDTH = 16  # of an embedding; an eighth of MLPerf's, and so are the layers below
BOTTOM = (DENSE, 64, 32, WIDTH)
PAIRS = (TABLES + 1) * TABLES // 2
TOP = (PAIRS + WIDTH, 128, 128, 64, 32, 1)
BATCH, STEPS = 4096, 1500
RATE, EMBEDDING_RATE = 2e-3, 1e-2
TRAINING_SEED, HELD_OUT_SEED, HELD_OUT = 9001, 9101, 400_000


class Dlrm:
    """The DLRM of Naumov et al. 2019: the vectors of all ids and of the dense features meet in dot products of all pairs."""

    def __init__(self) -> None:
        self.tables = torch.nn.ModuleList([torch.nn.Embedding(rows, WIDTH) for rows in ROWS])
        for table in self.tables:
            torch.nn.init.normal_(table.weight, std=0.1)
        self.bottom, self.top = _perceptron(BOTTOM, last=True), _perceptron(TOP, last=False)
        self.lower, self.left = torch.tril_indices(TABLES + 1, TABLES + 1, -1)

    def __call__(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """The logit of a click, [n], from `dense` [n, 13] and `ids` [n, 26]."""
        bottom = self.bottom(dense)
        vectors = torch.stack([bottom, *(table(ids[:, k]) for k, table in enumerate(self.tables))], dim=1)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.lower, self.left]
        logit: torch.Tensor = self.top(torch.cat([bottom, dots], dim=1))
        return logit[:, 0]


def _perceptron(widths: tuple[int, ...], last: bool) -> torch.nn.Sequential:
    layers: list[torch.nn.Module] = []
    for index, (narrow, wide) in enumerate(itertools.pairwise(widths)):
        layers.append(torch.nn.Linear(narrow, wide))
        if last or index < len(widths) - 2:
            layers.append(torch.nn.ReLU())
    return torch.nn.Sequential(*layers)


def rows(draw: np.random.Generator, count: int) -> tuple[dict[str, Any], Any, Any]:
    """Inputs, clicks and the probabilities behind them."""
    who, offered = users(draw, count), items(draw, count)
    probability = population().click(who, offered)
    return population().rows(who, offered), (draw.random(count) < probability).astype(np.float32), probability


def train() -> Dlrm:
    """One pass over fresh rows; the rates fall as a cosine."""
    torch.manual_seed(1)
    draw = np.random.default_rng(TRAINING_SEED)
    model = Dlrm()
    dense = [*model.bottom.parameters(), *model.top.parameters()]
    optimizer = torch.optim.Adam([{"params": dense, "lr": RATE}, {"params": model.tables.parameters(), "lr": EMBEDDING_RATE}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    loss_of = torch.nn.BCEWithLogitsLoss()
    for step in range(STEPS):
        inputs, clicks, _ = rows(draw, BATCH)
        optimizer.zero_grad()
        loss = loss_of(model(torch.from_numpy(inputs["dense"]), torch.from_numpy(inputs["ids"])), torch.from_numpy(clicks))
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)
    return model


def export(trained: Dlrm) -> onnx.ModelProto:
    """As PyTorch exports it: a gather for each table, all pairs by one product, the lower triangle of it gathered."""
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, array: Any) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def perceptron(value: str, layers: torch.nn.Sequential, prefix: str) -> str:
        for index, layer in enumerate(layers):
            made = f"{prefix}{index}"
            if isinstance(layer, torch.nn.Linear):
                weight = constant(f"{made}.weight", layer.weight.detach().numpy())
                bias = constant(f"{made}.bias", layer.bias.detach().numpy())
                nodes.append(helper.make_node("Gemm", [value, weight, bias], [made], transB=1))
            else:
                nodes.append(helper.make_node("Relu", [value], [made]))
            value = made
        return value

    bottom = perceptron("dense", trained.bottom, "bottom")
    nodes.append(helper.make_node("Unsqueeze", [bottom, constant("axis", np.array([1]))], ["bottom"]))
    nodes.append(helper.make_node("Split", ["ids"], [f"id{k}" for k in range(TABLES)], axis=1, num_outputs=TABLES))
    for k, table in enumerate(trained.tables):
        weight = constant(f"table{k}", table.weight.detach().numpy())
        nodes.append(helper.make_node("Gather", [weight, f"id{k}"], [f"vector{k}"], axis=0))
    nodes.append(helper.make_node("Concat", ["bottom", *(f"vector{k}" for k in range(TABLES))], ["vectors"], axis=1))
    nodes.append(helper.make_node("Transpose", ["vectors"], ["across"], perm=[0, 2, 1]))
    nodes.append(helper.make_node("MatMul", ["vectors", "across"], ["products"]))
    nodes.append(helper.make_node("Reshape", ["products", constant("flat", np.array([-1, (TABLES + 1) ** 2]))], ["pairs"]))
    lower, left = np.tril_indices(TABLES + 1, -1)
    nodes.append(helper.make_node("Gather", ["pairs", constant("triangle", lower * (TABLES + 1) + left)], ["dots"], axis=1))
    nodes.append(helper.make_node("Concat", [bottom, "dots"], ["met"], axis=1))
    nodes.append(helper.make_node("Sigmoid", [perceptron("met", trained.top, "top")], ["click"]))
    graph = helper.make_graph(
        nodes,
        "dlrm",
        [
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["batch", DENSE]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", TABLES]),
        ],
        [helper.make_tensor_value_info("click", TensorProto.FLOAT, ["batch", 1])],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="openinfer")
    onnx.checker.check_model(proto)
    return proto


def main() -> None:
    """Train, write, measure."""
    from openinfer.engine import load

    path = HERE / "dlrm.onnx"
    onnx.save(export(train()), path)
    inputs, clicks, probability = rows(np.random.default_rng(HELD_OUT_SEED), HELD_OUT)
    with load(path) as engine:
        parts = [{name: array[at : at + BATCH] for name, array in inputs.items()} for at in range(0, HELD_OUT, BATCH)]
        scores = np.concatenate([engine.run(part)["click"][:, 0] for part in parts])
    print(path.stat().st_size, "bytes, clicked", clicks.mean())
    record(interval(scores, clicks), auc(probability, clicks))


def interval(scores: Any, clicks: Any) -> tuple[float, float, float]:
    """AUC with its 95% bootstrap interval over rows, which are independent."""
    generator = np.random.default_rng(0)
    draws = [auc(scores[index], clicks[index]) for index in (generator.integers(0, len(clicks), len(clicks)) for _ in range(100))]
    low, high = np.percentile(draws, [2.5, 97.5])
    return auc(scores, clicks), float(low), float(high)


def record(found: tuple[float, float, float], best: float) -> None:
    """Put the figures into workload.toml."""
    path = HERE / "workload.toml"
    value, low, high = found
    figures = f"accuracy = {value:.4f}\naccuracy_interval = [{low:.4f}, {high:.4f}]\nbest_accuracy = {best:.4f}"
    print(figures)
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"accuracy = [^\n]*\naccuracy_interval = [^\n]*\nbest_accuracy = [^\n]*", figures, text), encoding="utf-8")


if __name__ == "__main__":
    main()
