"""`openinfer profile`: a model's requests, replayed on their schedule with the instruments on; then its layers, in a pass of their own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from openinfer.profiles import cachegrind, ceiling, latency, layers
from openinfer.profiles.profile_record import ProfileRecord
from openinfer.profiles.session import INSTRUMENTS, Session
from openinfer.workloads.replay import precise_loop, replay_inline, replay_submit
from openinfer.workloads.requests import batched, bindable, call_on
from openinfer.workloads.trace import Trace
from openinfer.workloads.workload import Store

from openinfer.engine import Engine, load
from openinfer.errors import InputError, OpenInferError, SchedulerError
from openinfer.runtime.signature import example

DRAWN = 512  # distinct requests of a model without a trace,
DRAWN_BYTES = 64 << 20  # as far as they fit
LOAD = 0.5  # of the capacity, for requests that have no schedule
LAYERS_S, STACKS_S = 0.5, 3.0
MOST_CALLS = 2_000_000
WARM_UP_CALLS = 10


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Requests to replay: `trace`, or drawn at random without one. `submits`: through `Engine.submit`, looked up in `open_store()`'s where
    there is one; otherwise by calls of the replaying thread.
    """

    trace: Trace | None = None
    submits: bool = False
    open_store: Callable[[], Store] | None = None


def profile(
    model: str,
    config: Any,
    traffic: Traffic,
    *,
    seconds: float,
    seed: int = 0,
    workload: str = "",
    command: str = "",
    off: Collection[str] = (),
    gil_only: bool = False,
    simulate_caches: bool = False,
) -> ProfileRecord:
    """Replay the traffic, from its beginning and as often as it takes, for `seconds`; then time the layers.

    Requests without a schedule arrive at random, at half of the model's capacity. Raises `InputError`, `ModelError` and `WorkloadError` as
    loading and replaying do.
    """
    rng = np.random.default_rng(seed)
    with load(model, config) as engine:
        if traffic.trace is not None and not len(traffic.trace):
            raise InputError("found a trace without requests; give one with at least one")
        session = Session(engine, {*off, "stacks"})
        run = _submitted if traffic.submits else _inline
        example_inputs = run(engine, traffic, session, seconds, rng)
        if "stacks" not in off:
            # A pass of their own: a sample stops the process for as long as it takes to walk the stacks of all threads.
            second = Session(engine, set(INSTRUMENTS) - {"stacks"}, gil_only)
            run(engine, traffic, second, min(seconds, STACKS_S), rng)
            session.take_stacks(second)
        if "layers" not in session.off and not engine.statistics().fallback:
            peak = ceiling.measure()
            timed = layers.measure(engine, example_inputs, peak, LAYERS_S)
            session.add_layers(timed, peak)
            if simulate_caches:
                _simulate(engine, model, example_inputs, sum(layer.ns for layer in timed), session)
        return session.record(model=model, workload=workload, command=command, seed=seed)


def _simulate(engine: Engine, model: str, inputs: dict[str, Any], call_ns: float, session: Session) -> None:
    """Add what cachegrind counts, or why it cannot."""
    reason = cachegrind.missing()
    if not reason and call_ns > cachegrind.MOST_NS:
        reason = f"a call of {call_ns / 1e6:.0f} ms would be simulated for minutes; profile a smaller input"
    if not reason:
        try:
            session.add_caches(cachegrind.simulate(engine, model, inputs))
            return
        except OpenInferError as error:
            reason = str(error)
    session.no_caches(reason)


def _inline(engine: Engine, traffic: Traffic, session: Session, seconds: float, rng: np.random.Generator) -> dict[str, Any]:
    """Replay by calls of this thread; the inputs of one call."""
    trace = traffic.trace
    if trace is not None and trace.rows is not None:
        raise InputError("found a trace whose requests have several rows each; such requests go through submit, as those of a workload")
    inputs = _drawn(engine, rng) if trace is None else dict(trace.inputs)
    count = len(next(iter(inputs.values())))
    scheduler = engine.config.scheduler
    largest = min(scheduler.max_batch, count) if batched(engine.inputs) else 1
    call = call_on(engine, bindable(engine.inputs, inputs, 1))
    arrival = _schedule(trace, _seconds(call), seconds, rng)
    repeated = inputs if len(arrival) <= count else {name: _Repeated(array) for name, array in inputs.items()}
    stamps = latency.stamped(engine, range(1, largest + 1), inputs, repeated, len(arrival))
    with session:
        times = replay_inline(arrival, stamps.serve, max_batch=largest, max_delay_us=scheduler.max_delay_us)
    session.add_latency(latency.stages(times, stamps, 1000 * scheduler.max_delay_us))
    return call.inputs


def _submitted(engine: Engine, traffic: Traffic, session: Session, seconds: float, rng: np.random.Generator) -> dict[str, Any]:
    """Replay through `Engine.submit` on an event loop; the inputs of one request."""
    trace = traffic.trace
    if trace is None:
        raise InputError("requests through submit need a trace; give one with --trace, or a workload")
    each: list[dict[str, Any]] = [dict(trace.request(index)) for index in range(len(trace))]
    requests: list[tuple[Any, Callable[[Any], Any] | None]] = [(inputs, None) for inputs in each]
    store = traffic.open_store() if traffic.open_store is not None else None
    with contextlib.ExitStack() as stack:
        if store is not None:
            stack.callback(store.close)
            if trace.look_ups is not None:
                for index in np.flatnonzero(trace.look_ups >= 0).tolist():
                    requests[index] = ((int(trace.look_ups[index]), store.blank(each[index])), store.look_up)
        runner = stack.enter_context(asyncio.Runner(loop_factory=precise_loop))
        arrival = _schedule(trace, _seconds(lambda: engine.run(each[0])), seconds, rng)

        refused: set[int] = set()

        async def send(index: int) -> None:
            inputs, prepare = requests[index % len(requests)]
            try:
                await engine.submit(inputs, prepare=prepare)  # the answer is not kept: memory would grow with it
            except SchedulerError:  # refused, or too late
                refused.add(index)

        runner.run(replay_submit(None, min(len(arrival), WARM_UP_CALLS), send))
        refused.clear()
        with session:
            times, _ = runner.run(replay_submit(arrival, len(arrival), send))
        answered = np.array([index not in refused for index in range(len(arrival))])
        session.add_refused(len(refused), len(arrival))
        if answered.any():
            session.add_latency({"corrected": times.corrected_ns[answered], "raw": times.raw_ns[answered]})
        session.add_waits(engine.statistics().scheduler[-1]["waits"])
    return each[0]


class _Repeated:
    """The rows of an array again and again, read one by one or by slice; a copy only where a slice crosses the end."""

    def __init__(self, array: Any) -> None:
        self._array, self._length = array, len(array)

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, slice):
            return self._array[at % self._length]
        start = at.start % self._length
        stop = start + at.stop - at.start
        return self._array[start:stop] if stop <= self._length else self._array[np.arange(start, stop) % self._length]


def _drawn(engine: Engine, rng: np.random.Generator) -> dict[str, Any]:
    """Distinct random requests, first axis the request."""
    one = example(engine.inputs, rng, 1)
    count = max(2, min(DRAWN, DRAWN_BYTES // max(1, sum(array.nbytes for array in one.values()))))
    if batched(engine.inputs):
        return example(engine.inputs, rng, count)
    many = [example(engine.inputs, rng, 1) for _ in range(count)]
    return {name: np.stack([each[name] for each in many]) for name in one}


def _seconds(call: Callable[[], object]) -> float:
    """The median of a few calls."""
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
