"""`openinfer profile`: a model's requests, replayed on their schedule with the instruments on; then its layers, in a pass of their own."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from openinfer.profiles import ceiling, latency, layers
from openinfer.profiles.profile_record import ProfileRecord
from openinfer.profiles.session import Session
from openinfer.workloads.replay import replay_inline
from openinfer.workloads.requests import batched, bindable, call_on
from openinfer.workloads.trace import Trace

from openinfer.engine import load
from openinfer.errors import InputError
from openinfer.runtime.signature import example

DRAWN = 512  # distinct requests of a model without a trace,
DRAWN_BYTES = 64 << 20  # as far as they fit
LOAD = 0.5  # of the capacity, for requests that have no schedule
LAYERS_S = 0.5
MOST_CALLS = 2_000_000
WARM_UP_CALLS = 10


def profile(
    model: str,
    config: Any,
    trace: Trace | None,
    *,
    seconds: float,
    seed: int = 0,
    workload: str = "",
    command: str = "",
    off: Collection[str] = (),
    gil_only: bool = False,
) -> ProfileRecord:
    """Replay `trace`, from its beginning and as often as it takes, or requests drawn at random, for `seconds`; then time the layers.

    Requests without a schedule arrive at random, at half of the model's capacity. Raises `InputError`, `ModelError` and `WorkloadError` as
    loading and replaying do.
    """
    rng = np.random.default_rng(seed)
    with load(model, config) as engine:
        inputs = _drawn(engine, rng) if trace is None else dict(trace.inputs)
        count = len(next(iter(inputs.values())))
        if not count:
            raise InputError("found a trace without requests; give one with at least one")
        largest = min(engine.config.scheduler.max_batch, count) if batched(engine.inputs) else 1
        calls = {size: call_on(engine, bindable(engine.inputs, inputs, size)) for size in range(1, largest + 1)}
        call_s = _call_seconds(calls[1])
        arrival = _schedule(trace, call_s, seconds, rng)
        rows = np.arange(len(arrival)) % count
        repeated = inputs if len(arrival) == count else {name: _Repeated(array, rows) for name, array in inputs.items()}
        stamps = latency.stamped(calls, repeated, len(arrival))
        session, delay_us = Session(engine, off, gil_only), engine.config.scheduler.max_delay_us
        with session:
            times = replay_inline(arrival, stamps.serve, max_batch=largest, max_delay_us=delay_us)
        session.add_latency(latency.stages(times, stamps, 1000 * delay_us))
        if "layers" not in session.off and not engine.statistics().fallback:
            peak = ceiling.measure()
            session.add_layers(layers.measure(engine, calls[1].inputs, peak, LAYERS_S), peak)
        return session.record(model=model, workload=workload, command=command, seed=seed)


class _Repeated:
    """The rows of an array again and again, read by slice."""

    def __init__(self, array: Any, rows: Any) -> None:
        self._array, self._rows = array, rows

    def __getitem__(self, at: Any) -> Any:
        return self._array[self._rows[at]]


def _drawn(engine: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Distinct random requests, first axis the request."""
    one = example(engine.inputs, rng, 1)
    count = max(2, min(DRAWN, DRAWN_BYTES // max(1, sum(array.nbytes for array in one.values()))))
    if batched(engine.inputs):
        return example(engine.inputs, rng, count)
    many = [example(engine.inputs, rng, 1) for _ in range(count)]
    return {name: np.stack([each[name] for each in many]) for name in one}


def _call_seconds(call: Any) -> float:
    import time

    taken = []
    for _ in range(WARM_UP_CALLS):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return max(1e-7, float(np.median(taken)))


def _schedule(trace: Trace | None, call_s: float, seconds: float, rng: np.random.Generator) -> Any:
    """Arrivals for about `seconds`: the trace's own, repeated or cut, or random ones at half of the capacity."""
    if trace is not None and trace.arrival_s is not None and len(trace) > 1:
        own = trace.arrival_s - trace.arrival_s[0]
        lap = float(own[-1]) + float(own[-1]) / (len(own) - 1)
        laps = max(1, min(int(np.ceil(seconds / max(lap, 1e-9))), MOST_CALLS // len(own) + 1))
        whole = np.concatenate([own + lap * k for k in range(laps)])
        return whole[whole <= seconds] if seconds < lap * laps else whole
    gap_s = (call_s + 2e-6) / LOAD
    count = int(max(2, min(MOST_CALLS, seconds / gap_s)))
    return np.cumsum(rng.exponential(gap_s, count))
