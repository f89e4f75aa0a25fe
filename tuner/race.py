"""Races between arms: processes kept side by side, one running at a time, blocks interleaved in mirrored order (A B B A)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from openinfer.config import Config
from openinfer.worker.process import Worker


@dataclasses.dataclass(frozen=True)
class Course:
    """What every arm of a race serves: model, trace and oracle files, requests per block, the quantile that is compared."""

    model: str
    trace: str
    oracle: str
    tolerance: float
    requests: int
    block: int
    quantile: float

    @property
    def blocks(self) -> int:
        """Different blocks of the trace."""
        return max(1, self.requests // self.block)


@dataclasses.dataclass
class Lap:
    """What one arm showed in one race: the objective per block (ns), every sample, the worst error, facts of the process."""

    objective: list[float]
    corrected: npt.NDArray[np.int64]
    raw: npt.NDArray[np.int64]
    error: float
    lateness: npt.NDArray[np.int64]
    facts: dict[str, Any]


@contextlib.contextmanager
def processes(course: Course, arms: Mapping[str, Config]) -> Iterator[dict[str, Worker]]:
    """A fresh, stopped process per arm; all end when the block does."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, config in arms.items():
            spec = {
                "model": course.model,
                "config": config.model_dump(mode="json"),
                "trace": course.trace,
                "oracle": course.oracle,
                "tolerance": course.tolerance,
            }
            workers[name] = stack.enter_context(Worker("openinfer.tuner.trial:open_trial", spec, name=f"arm {name}"))
        for worker in workers.values():
            worker.wait_ready()
            worker.call("check_fits", count=course.block)
            worker.call("block", first=0, count=course.block)  # warm up, not counted
            worker.pause()
        yield workers


def race(course: Course, workers: Mapping[str, Worker], order: Sequence[str], turns: int, seed: int) -> dict[str, Lap]:
    """`turns` blocks per arm: each turn visits all arms in a random order, the next turn in the mirrored one. The same block for all."""
    generator = np.random.default_rng(seed)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
    sequence = list(order)
    for turn in range(turns):
        if turn % 2 == 0:
            sequence = [order[i] for i in generator.permutation(len(order))]
        else:
            sequence.reverse()
        first = int(generator.integers(course.blocks)) * course.block
        for name in sequence:
            workers[name].resume()
            found[name].append(workers[name].call("block", first=first, count=course.block))
            workers[name].pause()
    return {name: _lap(course, workers[name], results) for name, results in found.items()}


def _lap(course: Course, worker: Worker, results: Sequence[Mapping[str, Any]]) -> Lap:
    worker.resume()
    facts = worker.call("facts")
    worker.pause()
    return Lap(
        [float(np.quantile(result["corrected"], course.quantile)) for result in results],
        np.concatenate([result["corrected"] for result in results]),
        np.concatenate([result["raw"] for result in results]),
        max(float(result["error"]) for result in results),
        np.max([result["lateness"] for result in results], axis=0),
        facts,
    )
