"""Whole networks beside ONNX Runtime: one process, one thread, batch 1, every model visited in shuffled rounds, a new input each call.

    python benchmarks/peers.py [--seconds S] [--match TEXT]

Both sides are called with addresses bound beforehand (ONNX Runtime: `run_with_iobinding`) and timed on the calling thread's processor
clock. The ratio is ONNX Runtime's median time ÷ ours: above 1 we are faster. Weights are random (`peer_models.py`).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from peer_models import MODELS

import openinfer

TURN = 8


class Peer:
    """Both engines on one model, and the times of each in ns."""

    def __init__(self, name: str) -> None:
        build, largest = MODELS[name]
        data, rng = build(), np.random.default_rng(1)
        (x,) = onnx.load_from_string(data).graph.input
        shape = tuple(dimension.dim_value for dimension in x.type.tensor_type.shape.dim)
        self._inputs = [
            rng.integers(0, largest + 1, shape) if largest else rng.standard_normal(shape).astype(np.float32) for _ in range(TURN)
        ]
        self._x = self._inputs[0].copy()
        engine = openinfer.load(data)
        bound = engine.bind({"x": self._x})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": self._x})
        binding = session.io_binding()
        for bind, key, array in ((binding.bind_input, "x", self._x), (binding.bind_output, "y", y)):
            bind(key, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        bound()
        error = np.abs(bound.outputs["y"] - y).max() / np.abs(y).max()
        if engine.statistics().fallback or not error < 2e-5:
            raise SystemExit(
                f"{name}: on the fallback {engine.statistics().fallback}, differs from ONNX Runtime by {error:.1e} of the largest"
            )
        self._calls: dict[str, Callable[[], Any]] = {"openinfer": bound, "onnxruntime": lambda: session.run_with_iobinding(binding)}
        self._keep = (engine, session, y)
        self.times: dict[str, list[int]] = {side: [] for side in self._calls}

    def round(self, rng: Any) -> None:
        """A turn of each side, in random order; the input changes outside the clock."""
        clock = time.thread_time_ns
        for side in rng.permutation(list(self._calls)):
            call, taken = self._calls[side], self.times[side]
            for given in self._inputs:
                self._x[...] = given
                begin = clock()
                call()
                taken.append(clock() - begin)


def main() -> None:
    """Print one line per model and the geometric mean of the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--match", default="")
    options = parser.parse_args()
    peers = {name: Peer(name) for name in MODELS if options.match in name}
    rng = np.random.default_rng()
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        for name in rng.permutation(list(peers)):
            peers[name].round(rng)
    print(f"{'':20}{'onnxruntime':>12}{'openinfer':>12}\n{'':20}{'µs':>12}{'µs':>12}{'ratio':>8}{'rounds':>8}")
    ratios = []
    for name, peer in peers.items():
        ours, theirs = (float(np.median(peer.times[side])) for side in ("openinfer", "onnxruntime"))
        ratios.append(theirs / ours)
        print(f"{name:20}{theirs / 1000:12.1f}{ours / 1000:12.1f}{ratios[-1]:8.2f}{len(peer.times['openinfer']) // TURN:8}")
    print(f"geometric mean {math.exp(np.mean(np.log(ratios))):.2f}, slowest {min(ratios):.2f}")


if __name__ == "__main__":
    main()
