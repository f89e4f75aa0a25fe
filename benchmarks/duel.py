"""A model in this engine and in ONNX Runtime, one thread each: addresses bound before, turns in random order, processor time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnxruntime

import openinfer

SIDES = ("openinfer", "onnxruntime")


class Duel:
    """Both engines on one model with one input "x" and one output "y", and the times of each in ns.

    `SystemExit` where a part of the model is on the fallback, or the answers differ by `tolerance` of the largest.
    """

    def __init__(self, name: str, data: bytes, inputs: Sequence[Any], tolerance: float, config: openinfer.Config | None = None) -> None:
        self._inputs, self._x = inputs, inputs[0].copy()
        engine = openinfer.load(data, config)
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
        fallback = engine.statistics().fallback
        if fallback or not error < tolerance:
            raise SystemExit(f"{name}: on the fallback {fallback}, differs from ONNX Runtime by {error:.1e} of the largest")
        self._calls: dict[str, Callable[[], Any]] = {"openinfer": bound, "onnxruntime": lambda: session.run_with_iobinding(binding)}
        self._keep = (engine, session, y)
        self._times: dict[str, list[int]] = {side: [] for side in SIDES}

    def round(self, rng: Any) -> None:
        """A turn of each side, in random order; the input changes outside the clock."""
        clock = time.thread_time_ns
        for side in rng.permutation(SIDES):
            call, taken = self._calls[side], self._times[side]
            for given in self._inputs:
                self._x[...] = given
                begin = clock()
                call()
                taken.append(clock() - begin)

    @property
    def rounds(self) -> int:
        """Turns of each side so far."""
        return len(self._times["openinfer"]) // len(self._inputs)

    def medians(self) -> tuple[float, float]:
        """(ours, ONNX Runtime's), in ns."""
        ours, theirs = (float(np.median(self._times[side])) for side in SIDES)
        return ours, theirs


def chosen(names: Iterable[str], text: str) -> list[str]:
    """The names that contain `text`; `SystemExit` where none does."""
    every = list(names)
    found = [name for name in every if text in name]
    if not found:
        raise SystemExit(f"found no name with {text!r}; allowed: parts of {', '.join(every)}")
    return found


def fight(duels: dict[str, Duel], seconds: float) -> None:
    """Rounds of all of them, in an order that is drawn anew each time."""
    rng = np.random.default_rng()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name in rng.permutation(list(duels)):
            duels[name].round(rng)
