"""Trains the windowed model of `hft` and writes it beside this file, with its accuracy in workload.toml: `python build_windowed.py`.

Needs the extra `models`. The sessions come from seeds that no split uses. Training is seeded; rebuilt models agree up to torch's rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from openinfer.workloads.accuracy import Figure, bootstrap, record
from openinfer.workloads.hft.market import Session, features, labels, regime, session
from openinfer.workloads.hft.networks import TickLstm, tick_lstm_onnx
from openinfer.workloads.hft.traffic import HORIZON, WARM_UP
from openinfer.workloads.hft.windows import feature_windows
from torch import nn

HERE = Path(__file__).parent
TRAINING, HELD_OUT = (9001, 9002, 9003), (9101,)
EVENTS, HELD = 20_000, 10_000

Windows = Callable[[Session, Any], Any]


def sessions(seeds: Sequence[int], events: int) -> list[tuple[Session, Any]]:
    """Sessions of both regimes, each with its labels."""
    days = [session(regime(name), events + WARM_UP + HORIZON, seed) for seed in seeds for name in ("quiet", "burst")]
    return [(day, labels(day, HORIZON)) for day in days]


def train(net: nn.Module, days: Sequence[tuple[Session, Any]], windows: Windows, steps: int, batch: int, rate: float) -> None:
    """AdamW under a one-cycle schedule on windows drawn at random; each batch from one session."""
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator, begin = np.random.default_rng(0), time.perf_counter()
    net.train()
    for step in range(steps):
        day, truth = days[int(generator.integers(len(days)))]
        last = np.sort(generator.choice(np.arange(WARM_UP, len(truth)), batch, replace=False))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(torch.from_numpy(windows(day, last))), torch.from_numpy(truth[last]))
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1} of {steps}, loss {loss.item():.4f}, {time.perf_counter() - begin:.0f} s", flush=True)
    net.eval()


def measure(name: str, proto: onnx.ModelProto, windows: Windows) -> Figure:
    """Write the model; its accuracy over held-out sessions by the engine, intervals over blocks of 1,000 consecutive events."""
    from openinfer.engine import load

    path = HERE / f"{name}.onnx"
    onnx.save(proto, path)
    right = []
    with load(path) as engine:
        for day, truth in sessions(HELD_OUT, HELD):
            for first in range(WARM_UP, WARM_UP + HELD, 500):
                last = np.arange(first, first + 500)
                right.append(engine.run({"x": windows(day, last)})["probabilities"].argmax(1) == truth[last])
    answers = np.concatenate(right)
    print(name, path.stat().st_size, "bytes")
    return bootstrap(lambda index: float(answers[index].mean()), len(answers), 1000)


def build_tick_lstm(days: Sequence[tuple[Session, Any]]) -> Figure:
    """Train, write, measure."""
    rows = np.concatenate([features(day) for day, _ in days])
    net = TickLstm(rows.mean(0), rows.std(0) + np.float32(1e-6))
    # The features of a session are computed once: they are the same for every window.
    known = {id(day): features(day) for day, _ in days}
    offsets = np.arange(-49, 1)
    train(net, days, lambda day, last: known[id(day)][last[:, None] + offsets], 500, 128, 4e-3)
    return measure("tick_lstm", tick_lstm_onnx(net), feature_windows)


def main() -> None:
    """Build it and record its accuracy."""
    torch.manual_seed(0)
    figure = build_tick_lstm(sessions(TRAINING, EVENTS))
    print("tick_lstm", figure)
    record(HERE / "workload.toml", {"tick_lstm": figure})


if __name__ == "__main__":
    main()
