"""How much traffic a study replays at a time: requests per trace and per block, and how long an idle gap may last.

A block should take about a quarter of a second, so that a race of many blocks and processes fits a coffee break, and hold enough requests
for its percentile to be more than its maximum.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from openinfer.tuner.oracle import seconds_per_request
from openinfer.workloads.requests import Call, batched, bindable, call_on
from openinfer.workloads.trace import Trace

from openinfer.config import Config
from openinfer.engine import load
from openinfer.errors import StudyError
from openinfer.ir.graph import Signature

MOST = 20_000  # requests of a trace
SCHEDULED_BLOCK = 1_000
BLOCK_S = 0.25
TAIL_BLOCK = 200  # requests that a block needs for its p99 to be more than its maximum
LEAST_BLOCK = 5
ORACLE_S = 20.0  # for both splits
GAP_S, GAP_CALLS = 5e-3, 20  # an idle gap is cut to this, or to as many calls: caches have cooled down and queues are empty by then


@dataclasses.dataclass(frozen=True)
class Pace:
    """`requests` of each trace are used, `block` of them per block, which takes about `block_s` seconds; idle gaps last at most `gap_s`.
    `objective` is the percentile that is compared.
    """

    requests: int
    block: int
    block_s: float
    gap_s: float
    objective: str


def measure(model: Path, signatures: Sequence[Signature], traces: Sequence[Trace], objective: str | None, base: Config) -> Pace:
    """Time the model and its oracle once, and fit the traffic to them."""
    call_s = _seconds_per_call(model, traces[0], base)
    gap_s = max(GAP_S, GAP_CALLS * call_s)
    requests = min(_affordable(model, signatures, traces[0]), *(len(trace) for trace in traces))
    return fit([without_long_gaps(trace.between(0, requests), gap_s) for trace in traces], requests, call_s, gap_s, objective)


def fit(traces: Sequence[Trace], requests: int, call_s: float, gap_s: float, objective: str | None) -> Pace:
    """The pace for traces of `requests` each, without long gaps; without an `objective` it is p99, or p50 where a block is too short
    for that. `StudyError` where no block can hold the objective's percentile.
    """
    request_s = max(call_s, *(_gap_s(trace) for trace in traces))
    least = LEAST_BLOCK if objective is None else max(LEAST_BLOCK, math.ceil(round(2 / (1 - quantile_of(objective)), 6)))
    if objective is not None and requests < least:
        raise StudyError(
            f"objective {objective}: found {requests} requests per split; its blocks need {least}; give a longer trace or --objective p50"
        )
    fits = int(BLOCK_S / request_s)
    most = requests if traces[0].arrival_s is None else min(requests, max(SCHEDULED_BLOCK, least))
    block = min(most, max(fits, least))
    return Pace(requests, block, block * request_s, gap_s, objective or ("p99" if block >= TAIL_BLOCK else "p50"))


def quantile_of(objective: str) -> float:
    """0.99 of "p99"; `StudyError` where it is no percentile."""
    try:
        percentile = float(objective.removeprefix("p"))
    except ValueError:
        percentile = -1.0
    if not objective.startswith("p") or not 0 < percentile < 100:
        raise StudyError(f"unknown objective {objective!r}; allowed: a percentile of the latency such as p50, p99 or p99.9")
    return percentile / 100


def without_long_gaps(trace: Trace, gap_s: float) -> Trace:
    """The trace with its idle gaps cut to `gap_s`."""
    if trace.arrival_s is None:
        return trace
    gaps = np.minimum(np.diff(trace.arrival_s, prepend=trace.arrival_s[:1]), gap_s)
    return dataclasses.replace(trace, arrival_s=np.cumsum(gaps))


def _affordable(model: Path, signatures: Sequence[Signature], trace: Trace) -> int:
    """How many requests per split the oracle can answer in its time."""
    together = min(32, trace.row_count) if batched(signatures) else 1
    taken_s = seconds_per_request(onnx.load(model), bindable(signatures, trace.inputs, together), together)
    return max(8, int(min(MOST, ORACLE_S / 2 / max(1e-9, taken_s * trace.row_count / len(trace)))))


def _seconds_per_call(model: Path, trace: Trace, base: Config) -> float:
    """The fastest of a few calls of the default configuration on the first request."""
    with load(model, base) as engine:
        return _seconds(call_on(engine, bindable(engine.inputs, trace.inputs, 1)))


def _gap_s(trace: Trace) -> float:
    return 0.0 if trace.arrival_s is None or len(trace) < 2 else float(trace.arrival_s[-1] / (len(trace) - 1))


def _seconds(call: Call) -> float:
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return max(1e-7, min(taken))
