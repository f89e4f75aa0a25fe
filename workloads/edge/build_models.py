"""Trains the models of `edge` and writes them beside this file, with their held-out figures in workload.toml: `python build_models.py`.

Needs the extra `models`; names after the command train those alone. A few minutes a model on two cores. Data comes from seeds that no split
uses. Training is seeded; a rebuilt model agrees up to the libraries' rounding.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from openinfer.workloads.accuracy import bootstrap, record
from openinfer.workloads.edge import machines, words
from openinfer.workloads.edge.networks import autoencoder, ds_cnn, export, parameters
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
TRAINING_SEED, HELD_OUT_SEED, HELD_OUT = 9001, 9101, 10_000
BATCH, RATE = 128, 4e-3
Answer = Callable[[Any], Any]


def fit(network: torch.nn.Sequential, x: Any, y: Any, epochs: int, loss_of: Callable[..., torch.Tensor]) -> None:
    """Adam, its rate rising and falling once over all epochs; each in a new order."""
    rows, targets = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * (len(x) // BATCH))
    for epoch in range(epochs):
        order = torch.randperm(len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH)
        total = 0.0
        for chosen in order:
            optimizer.zero_grad()
            loss = loss_of(network(rows[chosen]), targets[chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(order):.4f}", flush=True)


def train_ds_cnn() -> onnx.ModelProto:
    """On 12,000 clips."""
    x, y = words.clips(12_000, np.random.default_rng(TRAINING_SEED))
    network = ds_cnn(words.CLASSES)
    fit(network, x, y, 6, torch.nn.functional.cross_entropy)
    return export(network, "ds_cnn", (1, words.FRAMES, words.COEFFICIENTS), ("probabilities", words.CLASSES), softmax=True)


def train_autoencoder() -> onnx.ModelProto:
    """On 20,000 recordings without a fault."""
    x, _ = machines.recordings(20_000, 0.0, np.random.default_rng(TRAINING_SEED))
    network = autoencoder(machines.WIDTH)
    fit(network, x, x, 12, torch.nn.functional.mse_loss)
    return export(network, "autoencoder", (machines.WIDTH,), ("rebuilt", machines.WIDTH), softmax=False)


# A score is two columns, a row a request: for classifiers the class named and the right one; else how odd it seems, and whether it is.
def name_words(answer: Answer) -> Any:
    """Of HELD_OUT clips."""
    x, y = words.clips(HELD_OUT, np.random.default_rng(HELD_OUT_SEED))
    return np.stack([answer(x).argmax(axis=1), y], axis=1)


def judge_recordings(answer: Answer) -> Any:
    """Of HELD_OUT recordings, half of them with a fault: the mean square of what the network cannot rebuild."""
    x, y = machines.recordings(HELD_OUT, 0.5, np.random.default_rng(HELD_OUT_SEED))
    return np.stack([((answer(x) - x) ** 2).mean(axis=1), y], axis=1)


def accuracy(scores: Any) -> float:
    """The share named right."""
    return float((scores[:, 0] == scores[:, 1]).mean())


def auc(scores: Any) -> float:
    """Of the oddness against the faults."""
    return float(roc_auc_score(scores[:, 1], scores[:, 0]))


MODELS: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[Answer], Any], Callable[[Any], float]]] = {
    "ds_cnn": (train_ds_cnn, name_words, accuracy),
    "autoencoder": (train_autoencoder, judge_recordings, auc),
}


def main(names: list[str]) -> None:
    """Train, write, measure."""
    from openinfer.engine import load

    for name in names or MODELS:
        torch.manual_seed(1)
        train, score, measure = MODELS[name]
        path, proto = HERE / f"{name}.onnx", train()
        onnx.save(proto, path)
        with load(path) as engine:
            (output,) = (signature.name for signature in engine.outputs)
            scores = score(functools.partial(run, engine, output))
        figure = bootstrap(functools.partial(chosen, scores, measure), len(scores))
        print(name, parameters(proto), "parameters,", path.stat().st_size, "bytes, held-out", figure)
        record(HERE / "workload.toml", {name: figure})


def chosen(scores: Any, measure: Callable[[Any], float], index: Any) -> float:
    """The measure of some of the scores."""
    return measure(scores[index])


def run(engine: Any, output: str, x: Any) -> Any:
    """The answers to all rows, some hundred at a time."""
    return np.concatenate([engine.run({"x": x[at : at + 500]})[output] for at in range(0, len(x), 500)])


if __name__ == "__main__":
    main(sys.argv[1:])
