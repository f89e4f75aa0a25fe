"""Whole networks beside ONNX Runtime: one process, one thread, batch 1, every model visited in shuffled rounds, a new input each call.

    python benchmarks/peers.py [--seconds S] [--match TEXT]

Both sides are called with addresses bound beforehand (ONNX Runtime: `run_with_iobinding`) and timed on the calling thread's processor
clock. The ratio is ONNX Runtime's median time ÷ ours: above 1 we are faster. Weights are random (`peer_models.py`).
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import onnx
from duel import Duel, chosen, fight
from peer_models import MODELS

TURN = 8
TOLERANCE = 2e-5


def duel(name: str) -> Duel:
    """Both engines on a network of `peer_models.py`."""
    build, largest = MODELS[name]
    data, rng = build(), np.random.default_rng(1)
    (x,) = onnx.load_from_string(data).graph.input
    shape = tuple(dimension.dim_value for dimension in x.type.tensor_type.shape.dim)
    inputs = [rng.integers(0, largest + 1, shape) if largest else rng.standard_normal(shape).astype(np.float32) for _ in range(TURN)]
    return Duel(name, data, inputs, TOLERANCE)


def main() -> None:
    """Print one line per model and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--match", default="")
    options = parser.parse_args()
    duels = {name: duel(name) for name in chosen(MODELS, options.match)}
    fight(duels, options.seconds)
    print(f"{'':20}{'onnxruntime':>12}{'openinfer':>12}\n{'':20}{'µs':>12}{'µs':>12}{'ratio':>8}{'rounds':>8}")
    ratios = []
    for name, each in duels.items():
        ours, theirs = each.medians()
        ratios.append(theirs / ours)
        print(f"{name:20}{theirs / 1000:12.1f}{ours / 1000:12.1f}{ratios[-1]:8.2f}{each.rounds:8}")
    print(f"geometric mean {math.exp(np.mean(np.log(ratios))):.2f}, slowest {min(ratios):.2f}")


if __name__ == "__main__":
    main()
