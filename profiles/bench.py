"""Times a model's calls beside other engines: one process, one thread, rounds that visit every side in shuffled order, a new input each
round.

Each OpenInfer call is compared with the peers' call of the same kind: addresses bound beforehand and the input refilled outside the clock
(`bound`), the refill inside it (`refill`), or the convenient call that takes and returns arrays (`run`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.profiles.contenders import lightgbm, onnxruntime, openinfer, openvino
from openinfer.profiles.contenders._base import Contender

from openinfer.engine import load
from openinfer.errors import InputError, suggest
from openinfer.ir.graph import Array
from openinfer.runtime.signature import example

ROWS = 1024
TURN = 16  # calls in a row, each timed alone: enough for the caches to hold the side's own data, as they do in service


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to call one engine. `ratio` is how many times the fastest peer's call of this kind takes longer (p50 ÷ p50)."""

    name: str
    kind: str
    p50_ns: float
    p99_ns: float
    against: str | None = None
    ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """All sides of one model. The clock's own cost is part of every figure. `absent` says why a peer that was asked for is not there."""

    model: str
    batch: int
    rounds: int
    clock_ns: float
    sides: list[Side]
    absent: dict[str, str]


def bench(
    model: str, config: Any, against: Sequence[str], batch: int, seconds: float, rows: Mapping[str, Array] | None = None
) -> BenchResult:
    """Interleaved timings of `model` and its peers for `seconds`. Raises `InputError` for an unknown peer.

    `rows` are the requests to draw from, first axis the request; without them the inputs are random.
    """
    unknown = [name for name in against if name not in PEERS]
    if unknown:
        raise InputError(f"unknown engine {unknown[0]!r}; {suggest(unknown[0], PEERS)}")
    rng = np.random.default_rng(0)
    with load(model, config) as engine:
        inputs = [example(engine.inputs, rng, batch) for _ in range(ROWS)] if rows is None else _batches(rows, batch)
        contenders = openinfer.openinfer(engine, inputs[0])
        absent: dict[str, str] = {}
        for name in against:
            try:
                contenders += PEERS[name](model, inputs[0])
            except InputError as error:
                absent[name] = str(error)
        samples = _interleave(contenders, inputs, rng, seconds)
    sides = [_side(c, samples[c.name]) for c in contenders]
    return BenchResult(model, batch, len(samples[contenders[0].name]), _clock_ns(), [_compared(side, sides) for side in sides], absent)


def _batches(rows: Mapping[str, Array], batch: int) -> list[dict[str, Array]]:
    """Batches of requests in random order: successive requests of a trace resemble each other, which flatters code that branches on
    them.
    """
    order = np.random.default_rng(1).permutation(len(next(iter(rows.values()))))
    groups = [order[i : i + batch] for i in range(0, len(order) - batch + 1, batch)]
    return [{name: np.ascontiguousarray(array[group]) for name, array in rows.items()} for group in groups]


def _side(contender: Contender, samples: Sequence[int]) -> Side:
    p50, p99 = np.percentile(samples, [50, 99])
    return Side(contender.name, contender.kind, float(p50), float(p99))


def _interleave(contenders: Sequence[Contender], inputs: Sequence[Mapping[str, Array]], rng: Any, seconds: float) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = {contender.name: [] for contender in contenders}
    clock, end = time.perf_counter_ns, time.perf_counter() + seconds
    index = 0
    while time.perf_counter() < end or index < 64:
        for position in rng.permutation(len(contenders)):
            contender = contenders[position]
            prepare, call, taken = contender.prepare, contender.call, samples[contender.name]
            for turn in range(index, index + TURN):
                prepare(inputs[turn % len(inputs)])
                begin = clock()
                call()
                taken.append(clock() - begin)
        index += TURN
    return samples


PEERS: dict[str, Callable[[str, Mapping[str, Array]], list[Contender]]] = {
    "onnxruntime": onnxruntime.contenders,
    "openvino": openvino.contenders,
    "lightgbm": lightgbm.contenders,
}


def _compared(side: Side, sides: Sequence[Side]) -> Side:
    peers = [other for other in sides if other.kind == side.kind and not other.name.startswith("openinfer")]
    if not peers or not side.name.startswith("openinfer"):
        return side
    best = min(peers, key=lambda other: other.p50_ns)
    return dataclasses.replace(side, against=best.name, ratio=best.p50_ns / side.p50_ns)


def _clock_ns() -> float:
    clock = time.perf_counter_ns
    return float(np.median([clock() - begin for begin in (clock() for _ in range(10_000))]))
