"""How much traffic a study replays at a time: requests per trace and per block, and how long an idle gap may last.

A block should take about a tenth of a second, so that a race of many blocks and processes fits a coffee break, and hold enough requests
for its percentile to be more than its maximum.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np
import onnx
from openinfer.tuner.oracle import seconds_per_request
from openinfer.workloads.requests import Call, bindable, call_on
from openinfer.workloads.trace import Trace

from openinfer.config import Config
from openinfer.engine import load
from openinfer.ir.graph import Array

REQUESTS = 10_000  # of a trace, at most
BLOCK = 1_000
BLOCK_S = 0.25
TAIL_BLOCK = 200  # requests that a block needs for its p99 to be more than its maximum
LEAST_BLOCK = 5
ORACLE_S = 20.0  # for both splits
GAP_S, GAP_CALLS = 5e-3, 20  # an idle gap is cut to this, or to as many calls: caches have cooled down and queues are empty by then


@dataclasses.dataclass(frozen=True)
class Pace:
    """`block` requests per block, which takes about `block_s` seconds; the percentile that is compared."""

    block: int
    block_s: float
    objective: str


def affordable(model: str, requests: dict[str, Array], together: int) -> int:
    """How many requests per split the oracle can answer in its time; `requests` are `together` of them."""
    taken_s = max(1e-9, seconds_per_request(onnx.load(model), requests, together))
    return max(8, int(min(REQUESTS, ORACLE_S / 2 / taken_s)))


def seconds_per_call(model: str, trace: Trace) -> float:
    """The fastest of a few calls of the default configuration on the first request."""
    with load(model, Config()) as engine:
        return _seconds(call_on(engine, bindable(engine.inputs, trace.inputs, 1)))


def without_long_gaps(trace: Trace, call_s: float) -> Trace:
    """The trace with its idle gaps cut to `GAP_S`, or to `GAP_CALLS` calls where those take longer."""
    if trace.arrival_s is None:
        return trace
    gaps = np.minimum(np.diff(trace.arrival_s, prepend=trace.arrival_s[:1]), max(GAP_S, GAP_CALLS * call_s))
    return Trace(trace.inputs, np.cumsum(gaps), trace.labels)


def pace(traces: Sequence[Trace], call_s: float, quantile: float | None) -> Pace:
    """The block for traces without long gaps; without a `quantile` the objective is p99, or p50 where a block is too short for it."""
    shortest = min(len(trace) for trace in traces)
    request_s = max(call_s, *(_gap_s(trace) for trace in traces))
    fits = int(BLOCK_S / request_s)
    least = LEAST_BLOCK if quantile is None else max(LEAST_BLOCK, math.ceil(2 / (1 - quantile)))
    block = min(BLOCK, shortest, max(fits, least))
    objective = f"p{100 * quantile:g}" if quantile is not None else ("p99" if block >= TAIL_BLOCK else "p50")
    return Pace(block, block * request_s, objective)


def _gap_s(trace: Trace) -> float:
    return 0.0 if trace.arrival_s is None or len(trace) < 2 else float(trace.arrival_s[-1] / (len(trace) - 1))


def _seconds(call: Call) -> float:
    taken = []
    for _ in range(5):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return max(1e-7, min(taken))
