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
    """What every arm of a race serves: model, trace and oracle files, requests per block, the quantile that is compared, and how long a
    block takes the default.
    """

    model: str
    trace: str
    oracle: str
    tolerance: float
    requests: int
    block: int
    quantile: float
    block_s: float

    @property
    def timeout_s(self) -> float:
        """Patience with a block, or with a whole warm-up, of a configuration that is much slower than the default."""
        return 60.0 + 50.0 * self.block_s

    @property
    def blocks(self) -> int:
        """Different blocks of the trace."""
        return max(1, self.requests // self.block)


@dataclasses.dataclass
class Lap:
    """What one arm showed in one race: the objective per block (ns), every sample, the worst error, generator lateness [p50, p99],
    facts of the process (`Trial.facts`)."""

    objective: list[float]
    corrected: npt.NDArray[np.int64]
    raw: npt.NDArray[np.int64]
    error: float
    lateness: npt.NDArray[np.int64]
    facts: dict[str, Any]


@contextlib.contextmanager
def processes(course: Course, arms: Mapping[str, Config], handicaps: Mapping[str, float] | None = None) -> Iterator[dict[str, Worker]]:
    """A fresh process per arm, warmed up to its steady state and stopped; all end when the block does.

    `handicaps` slow arms down by known factors (`Trial.block`): how the tuner's own verdicts are checked.
    """
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, config in arms.items():
            spec = {
                "model": course.model,
                "config": config.model_dump(mode="json"),
                "trace": course.trace,
                "oracle": course.oracle,
                "tolerance": course.tolerance,
                "handicap": (handicaps or {}).get(name, 1.0),
            }
            workers[name] = stack.enter_context(Worker("openinfer.tuner.trial:open_trial", spec, name=f"arm {name}"))
        for worker in workers.values():
            worker.wait_ready()
            worker.pause()
        for worker in workers.values():  # one after the other: beside starting processes nothing settles
            worker.resume()
            worker.call("settle", timeout_s=course.timeout_s, count=course.block)
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
            found[name].append(workers[name].call("block", timeout_s=course.timeout_s, first=first, count=course.block))
            workers[name].pause()
    return {name: _lap(course, workers[name], results) for name, results in found.items()}


def _lap(course: Course, worker: Worker, results: Sequence[Mapping[str, Any]]) -> Lap:
    worker.resume()
    facts = worker.call("facts", timeout_s=course.timeout_s)
    worker.pause()
    return Lap(
        [float(np.quantile(result["corrected"], course.quantile)) for result in results],
        np.concatenate([result["corrected"] for result in results]),
        np.concatenate([result["raw"] for result in results]),
        max(float(result["error"]) for result in results),
        np.max([result["lateness"] for result in results], axis=0),
        facts,
    )
