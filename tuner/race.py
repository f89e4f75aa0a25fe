"""Races between arms: processes kept side by side, one running at a time, blocks interleaved in mirrored order (A B B A)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from openinfer.config import Config
from openinfer.errors import StudyError, WorkerError
from openinfer.worker.process import Worker


@dataclasses.dataclass(frozen=True)
class Course:
    """What every arm of a race serves: model, trace and oracle files, requests per block, the quantile that is compared, how long a block
    takes the default, and the workload whose requests come through `Engine.submit`, where they do.
    """

    model: str
    trace: str
    oracle: str
    tolerance: float
    requests: int
    block: int
    quantile: float
    block_s: float
    submits: str = ""

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
    """What one arm showed in one race: where its blocks began in the trace, the objective of each (ns), every sample, the worst error,
    generator lateness [p50, p99], facts of the process (`ArmServer.facts`), and what was seen of it in each block (`ArmServer.block`).
    """

    firsts: list[int]
    objective: list[float]
    corrected: npt.NDArray[np.int64]
    raw: npt.NDArray[np.int64]
    error: float
    lateness: npt.NDArray[np.int64]
    facts: dict[str, Any]
    seen: list[dict[str, float]]


class ArmError(StudyError):
    """One arm of a race failed; `arm` is its name."""

    def __init__(self, arm: str, reason: str) -> None:
        super().__init__(reason if reason.startswith(f"arm {arm}") else f"arm {arm}: {reason}")
        self.arm = arm


@contextlib.contextmanager
def processes(course: Course, arms: Mapping[str, Config], handicaps: Mapping[str, float] | None = None) -> Iterator[dict[str, Worker]]:
    """A fresh process per arm, warmed up to its steady state and stopped; all end when the block does.

    `handicaps` slow arms down by known factors: how the tuner's own verdicts are checked. Raises `ArmError` for an arm that does not
    start or settle.
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
                "submits": course.submits,
            }
            workers[name] = stack.enter_context(Worker("openinfer.tuner.arm_server:open_arm", spec, name=f"arm {name}"))
        for name, worker in workers.items():
            with _blamed(name):
                worker.wait_ready()
            worker.pause()
        for name, worker in workers.items():  # one after the other: beside starting processes nothing settles
            with _blamed(name), _awake(worker):
                worker.call("settle", timeout_s=course.timeout_s, count=course.block)
        yield workers


def race(course: Course, workers: Mapping[str, Worker], order: Sequence[str], turns: int, seed: int) -> dict[str, Lap]:
    """`turns` blocks per arm: each turn visits all arms in a random order, the next turn in the mirrored one. The same block for all,
    no block again before every other has been served. Raises `ArmError`.
    """
    generator = np.random.default_rng(seed)
    firsts: list[int] = []
    while len(firsts) < turns:
        firsts += (generator.permutation(course.blocks) * course.block).tolist()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
    sequence = list(order)
    for turn in range(turns):
        if turn % 2 == 0:
            sequence = [order[i] for i in generator.permutation(len(order))]
        else:
            sequence.reverse()
        for name in sequence:
            with _blamed(name), _awake(workers[name]) as worker:
                found[name].append(worker.call("block", timeout_s=course.timeout_s, first=firsts[turn], count=course.block))
    return {name: _lap(course, name, workers[name], firsts[:turns], results) for name, results in found.items()}


def _lap(course: Course, name: str, worker: Worker, firsts: list[int], results: Sequence[Mapping[str, Any]]) -> Lap:
    with _blamed(name), _awake(worker):
        facts = worker.call("facts", timeout_s=course.timeout_s)
    return Lap(
        firsts,
        [float(np.quantile(result["corrected"], course.quantile)) for result in results],
        np.concatenate([result["corrected"] for result in results]),
        np.concatenate([result["raw"] for result in results]),
        max(float(result["error"]) for result in results),
        np.max([result["lateness"] for result in results], axis=0),
        facts,
        [result["seen"] for result in results],
    )


@contextlib.contextmanager
def _awake(worker: Worker) -> Iterator[Worker]:
    """The arm's process runs inside, and stands still outside."""
    worker.resume()
    yield worker
    worker.pause()


@contextlib.contextmanager
def _blamed(arm: str) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        raise ArmError(arm, str(error)) from error
