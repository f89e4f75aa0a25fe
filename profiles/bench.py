"""Times a model's calls beside other engines: one process, rounds that visit every side in shuffled order, a new input each call. The
peers run on one thread, the engine on as many as its configuration says.

Each OpenInfer call is compared with the peers' call of the same kind: addresses bound beforehand and the input refilled outside the clock
(`bound`), the refill inside it (`refill`), or the convenient call that takes and returns arrays (`run`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.profiles.contenders import lightgbm, onnxruntime, openinfer, openvino
from openinfer.profiles.contenders._base import Contender

from openinfer.engine import load
from openinfer.errors import InputError, MissingExtraError, suggest
from openinfer.ir.graph import ITEM_BYTES, Array, Signature
from openinfer.runtime.signature import example

EXAMPLES = 1024  # distinct inputs, where they fit
MIN_EXAMPLES = 4
EXAMPLES_BYTES = 128 << 20
BATCH_BYTES = 256 << 20  # of one call's inputs
MIN_CALLS = 3  # per side, however long they take
TURN = 16  # calls in a row, each timed alone: enough for the caches to hold the side's own data, as they do in service


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to call one engine. `ratio` is how many times the fastest peer's call of this kind takes longer (p50 ÷ p50)."""

    name: str
    kind: str
    p50_ns: float
    p99_ns: float
    calls: int
    against: str | None = None
    ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """All sides of one model. The clock's own cost is part of every figure. `threads` are the engine's, the peers have one. `absent` says
    why a peer that was asked for is not there.
    """

    model: str
    batch: int
    threads: int
    clock_ns: float
    sides: list[Side]
    absent: dict[str, str]


def bench(
    model: str, config: Any, against: Sequence[str], batch: int, seconds: float, rows: Mapping[str, Array] | None = None
) -> BenchResult:
    """Interleaved timings of `model` and its peers for `seconds`, or for three calls a side where those take longer.

    Raises `InputError` for an unknown peer, and for a batch whose inputs are larger than 256 MiB. `rows` are the requests to draw from,
    first axis the request; without them the inputs are random.
    """
    unknown = [name for name in against if name not in PEERS]
    if unknown:
        raise InputError(f"unknown engine {unknown[0]!r}; {suggest(unknown[0], PEERS)}")
    rng = np.random.default_rng(0)
    with load(model, config) as engine:
        _check_size(batch, _batch_bytes(engine.inputs, batch))
        inputs = _examples(engine.inputs, rng, batch) if rows is None else _batches(rows, rng, batch)
        contenders = openinfer.openinfer(engine, inputs[0])
        absent: dict[str, str] = {}
        for name in against:
            try:
                contenders += PEERS[name](model, inputs[0])
            except (InputError, MissingExtraError) as error:
                absent[name] = str(error)
        samples = _interleave(contenders, inputs, rng, seconds)
    sides = [_side(c, samples[c.name]) for c in contenders]
    return BenchResult(model, batch, engine.config.engine.threads, _clock_ns(), [_compared(side, sides) for side in sides], absent)


def _batch_bytes(signatures: Sequence[Signature], batch: int) -> int:
    shapes = [(s.dtype, [batch if isinstance(d, str) else d for d in s.shape or ()]) for s in signatures]
    return sum(ITEM_BYTES.get(dtype, 0) * math.prod(shape) for dtype, shape in shapes)


def _check_size(batch: int, size: int) -> None:
    if size > BATCH_BYTES:
        raise InputError(
            f"batch {batch}: found inputs of {size >> 20} MiB a call; allowed: {BATCH_BYTES >> 20} MiB; take a smaller --batch"
        )


def _example_count(size: int) -> int:
    """How many inputs of `size` bytes to draw: many, so that they are distinct, but not more than memory holds with ease."""
    return min(EXAMPLES, max(MIN_EXAMPLES, EXAMPLES_BYTES // max(size, 1)))


def _examples(signatures: Sequence[Signature], rng: np.random.Generator, batch: int) -> list[dict[str, Array]]:
    return [example(signatures, rng, batch) for _ in range(_example_count(_batch_bytes(signatures, batch)))]


def _batches(rows: Mapping[str, Array], rng: np.random.Generator, batch: int) -> list[dict[str, Array]]:
    """Batches of requests in random order: successive requests of a trace resemble each other, which flatters code that branches on
    them. No request comes twice before every other came once.
    """
    length = len(next(iter(rows.values())))
    count = _example_count(batch * sum(array[:1].nbytes for array in rows.values()))
    laps = [rng.permutation(length) for _ in range(-(-count * batch // length))]
    groups = np.concatenate(laps)[: count * batch].reshape(count, batch)
    return [{name: np.ascontiguousarray(array[group]) for name, array in rows.items()} for group in groups]


def _side(contender: Contender, samples: Sequence[int]) -> Side:
    p50, p99 = np.percentile(samples, [50, 99])
    return Side(contender.name, contender.kind, float(p50), float(p99), len(samples))


def _interleave(contenders: Sequence[Contender], inputs: Sequence[Mapping[str, Array]], rng: Any, seconds: float) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = {contender.name: [] for contender in contenders}
    clock, end = time.perf_counter_ns, time.perf_counter() + seconds
    index = 0
    while time.perf_counter() < end or index == 0:
        for position in rng.permutation(len(contenders)):
            contender = contenders[position]
            prepare, call, taken = contender.prepare, contender.call, samples[contender.name]
            for turn in range(index, index + TURN):
                prepare(inputs[turn % len(inputs)])
                begin = clock()
                call()
                taken.append(clock() - begin)
                if len(taken) >= MIN_CALLS and time.perf_counter() >= end:
                    break
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
