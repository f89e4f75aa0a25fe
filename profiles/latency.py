"""Latency by stage: the hot path writes integer timestamps, and what each request waited for is worked out afterwards."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from openinfer.workloads.replay import ReplayTimes
from openinfer.workloads.requests import Call, RunCall, bindable

from openinfer.engine import Engine

Nanoseconds = npt.NDArray[np.int64]
STAGES = ("corrected", "raw", "queue", "batch", "copy", "kernel")


@dataclasses.dataclass(frozen=True)
class Stamped:
    """`serve` for `replay_inline`; by batch size, begin and end of each call's compiled code in the order of the calls."""

    serve: Callable[[int, int], object]
    rows: Mapping[int, Nanoseconds]

    def kernel_ns(self, sizes: npt.NDArray[np.int64]) -> Nanoseconds:
        """What each call's compiled code took; `sizes` are the calls' batch sizes in order."""
        taken = np.zeros(len(sizes), np.int64)
        for size, rows in self.rows.items():
            places = np.flatnonzero(sizes == size)
            taken[places] = rows[: len(places), 1] - rows[: len(places), 0]
        return taken


def stamped(engine: Engine, sizes: Iterable[int], trace: Mapping[str, Any], inputs: Mapping[str, Any], requests: int) -> Stamped:
    """Serve rows of `inputs` (first axis the request) by calls of each of `sizes`: copy in, call, copy out. Calls of a model that is
    compiled as a whole write their stamps themselves; `trace` holds the first rows, to bind to.
    """
    rows = {size: np.zeros((requests // size + 1, 2), np.int64) for size in sizes}
    engine.run(bindable(engine.inputs, trace, 1))  # finds what is not compiled for these shapes
    native = not engine.statistics().fallback
    calls: dict[int, Call] = {}
    answers: dict[int, dict[str, Any]] = {}
    sources: dict[int, list[tuple[Any, Any, bool]]] = {}
    for size in rows:
        bound = bindable(engine.inputs, trace, size)
        made = engine.bind_stamped(bound, rows[size]) if native else _StampedRun(engine, bound, rows[size])
        calls[size] = made
        # What `run` gives is fresh already.
        answers[size] = {name: np.empty_like(found) for name, found in made.outputs.items()} if native else {}
        sources[size] = [(array, inputs[name], array.shape[:1] == (size,)) for name, array in made.inputs.items()]

    def serve(at: int, size: int) -> None:
        call = calls[size]
        for bound, source, by_row in sources[size]:
            bound[...] = source[at : at + size] if by_row else source[at].reshape(bound.shape)
        call()
        for name, answer in answers[size].items():
            answer[...] = call.outputs[name]

    return Stamped(serve, rows)


class _StampedRun(RunCall):
    """A call through `run` that notes its times as a stamped bound call does."""

    def __init__(self, engine: Engine, inputs: dict[str, Any], rows: Nanoseconds) -> None:
        super().__init__(engine, inputs)
        self._rows, self._count = rows, 0

    def __call__(self) -> None:
        """Answer what `inputs` hold."""
        begin = time.perf_counter_ns()
        super().__call__()
        self._rows[self._count % len(self._rows)] = begin, time.perf_counter_ns()
        self._count += 1


def stages(times: ReplayTimes, stamps: Stamped, max_delay_ns: int = 0) -> dict[str, Nanoseconds]:
    """Nanoseconds of each request in each stage: waiting for company (batch), waiting for the engine (queue), copies, and the kernel.

    queue + batch + copy + kernel = corrected, but for the clock readings between them.
    """
    first = np.flatnonzero(np.diff(times.start_ns, prepend=-1))
    counts = np.diff(np.append(first, len(times.start_ns)))
    kernel = np.repeat(stamps.kernel_ns(counts), counts)
    copy = times.raw_ns - kernel
    last = np.repeat(first + counts - 1, counts)
    complete = np.minimum(times.intended_ns[last], times.intended_ns + max_delay_ns)
    batch = np.clip(np.minimum(complete, times.start_ns) - times.intended_ns, 0, None)
    queue = np.clip(times.start_ns - times.intended_ns - batch, 0, None)
    return {"corrected": times.corrected_ns, "raw": times.raw_ns, "queue": queue, "batch": batch, "copy": copy, "kernel": kernel}
