"""How an arm answers the requests of its trace: inline, by bound calls that the replay makes when they are due, or through `submit`."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import numpy as np
from openinfer.workloads.replay import ReplayTimes, precise_loop, replay_inline, replay_submit
from openinfer.workloads.requests import Call, batched, bindable, call_on
from openinfer.workloads.trace import Trace
from openinfer.workloads.workload import Store

from openinfer.engine import Engine

WARM, CROWDS = 4_096, (4, 16, 64)  # requests of a warm-up through `submit`, and how many come at once
IDLE_S = 1e-3  # before a block: the arm has just been woken
STAGES = ("queue", "lock", "handoff", "gil", "kernel", "blocking")

clock = time.perf_counter_ns
Answers = dict[str, Any]
Request = tuple[Any, Callable[[Any], Any] | None]  # what is submitted, and the look-up that it begins with


class Service(Protocol):
    """Serves requests first … first + count - 1 of a trace and writes their answers, row by row, into `answers`."""

    answers: Answers

    def replay(self, first: int, count: int) -> ReplayTimes:
        """On their schedule; back to back where the trace has none."""

    def warm_up(self) -> None:
        """Meet what a first request of its kind costs, before anything is timed."""

    def back_to_back(self, first: int, count: int) -> ReplayTimes:
        """One after the other."""

    def stages(self) -> dict[str, float]:
        """What the engine itself says of how requests waited."""

    def close(self) -> None:
        """Let go of all but the engine."""


class InlineService:
    """Calls of up to `scheduler.max_batch` requests, made by the replaying thread. `handicap` stretches every call by that factor."""

    def __init__(self, engine: Engine, trace: Trace, shapes: Mapping[str, Any], handicap: float) -> None:
        """`shapes`: an array in the shape of all answers by output."""
        self._engine, self._trace, self._handicap = engine, trace, handicap
        scheduler = engine.config.scheduler
        self._delay_us = scheduler.max_delay_us
        self._largest = min(scheduler.max_batch, len(trace)) if batched(engine.inputs) else 1
        sizes = range(1, self._largest + 1) if trace.rows is None else (1,)
        self._calls = {size: call_on(engine, bindable(engine.inputs, trace.inputs, size)) for size in sizes}
        self.answers = {name: np.empty_like(value, dtype=self._calls[1].outputs[name].dtype) for name, value in shapes.items()}

    def replay(self, first: int, count: int) -> ReplayTimes:
        """See `Service`."""
        if self._trace.arrival_s is None:
            return self.back_to_back(first, count)
        due = self._trace.arrival_s[first : first + count]
        return replay_inline(due - due[0] + IDLE_S, self._serve(first), max_batch=self._largest, max_delay_us=self._delay_us)

    def warm_up(self) -> None:
        """Nothing: the calls of all sizes are bound."""

    def back_to_back(self, first: int, count: int) -> ReplayTimes:
        """See `Service`."""
        return replay_inline(np.zeros(count), self._serve(first), max_batch=self._largest)

    def stages(self) -> dict[str, float]:
        """Nothing: no request waits in the engine."""
        return {}

    def close(self) -> None:
        """Nothing to let go of."""

    def _serve(self, first: int) -> Callable[[int, int], object]:
        trace, answers = self._trace, self.answers
        if trace.rows is None:
            stop = len(trace)
            given = {name: array[first:stop] for name, array in trace.inputs.items()}
            serve = _server(self._calls, given, {name: answer[first:stop] for name, answer in answers.items()})
        else:
            run = self._engine.run

            def serve(at: int, size: int) -> None:
                span = trace.span(first + at, first + at + size)
                for name, rows in run({name: array[span] for name, array in trace.inputs.items()}).items():
                    answers[name][span] = rows

        return serve if self._handicap == 1.0 else _stretched(serve, self._handicap)


class SubmitService:
    """`await engine.submit(…)` for each request, on an event loop of its own that stays. Requests with a look-up begin with `store`'s.
    `handicap` stretches the time from the begin of every request to its answer by that factor.
    """

    def __init__(self, engine: Engine, trace: Trace, shapes: Mapping[str, Any], handicap: float, store: Store | None) -> None:
        """`shapes`: an array in the shape of all answers by output."""
        self._engine, self._trace, self._store = engine, trace, store
        self._look_up = store.look_up if store is not None else None
        self._keys: list[int] = [-1] * len(trace) if trace.look_ups is None else trace.look_ups.tolist()
        self._requests: list[Request] = []  # of the replay that runs: more would make the collector's pauses longer
        outputs = engine.run(trace.request(0))
        self.answers = {name: np.empty_like(value, dtype=outputs[name].dtype) for name, value in shapes.items()}
        self._send: Callable[[int], Awaitable[Any]] = self._submit if handicap == 1.0 else _later(self._submit, handicap)
        self._runner = asyncio.Runner(loop_factory=precise_loop)

    def replay(self, first: int, count: int) -> ReplayTimes:
        """See `Service`."""
        if self._trace.arrival_s is None:
            return self.back_to_back(first, count)
        due = self._trace.arrival_s[first : first + count]
        return self._answered(first, count, due - due[0] + IDLE_S)

    def warm_up(self) -> None:
        """Requests in crowds, so that joined calls of many sizes are planned."""
        first, most = 0, min(len(self._trace), WARM)
        for crowd in itertools.cycle(CROWDS):
            count = min(crowd, most - first)
            if not count:
                return
            self._answered(first, count, np.zeros(count))
            first += count

    def back_to_back(self, first: int, count: int) -> ReplayTimes:
        """See `Service`."""
        return self._answered(first, count, None)

    def stages(self) -> dict[str, float]:
        """p99 of each wait over the latest requests on record, in ns, and how full batches were, as a share of `scheduler.max_batch`."""
        waits = self._engine.statistics().scheduler[-1]["waits"]
        if not waits:
            return {}
        return {f"{stage}_p99_ns": waits[f"{stage}_ns"]["p99"] for stage in STAGES} | {"batch_fill": waits["fill_percent"]["mean"] / 100}

    def close(self) -> None:
        """Answer what is under way, end the loop, close the store."""
        self._runner.run(self._engine.aclose())
        self._runner.close()
        if self._store is not None:
            self._store.close()

    def _answered(self, first: int, count: int, due: Any) -> ReplayTimes:
        self._requests = [self._request(index) for index in range(first, first + count)]
        times, answers = self._runner.run(replay_submit(due, count, self._send))
        self._requests = []
        for index, answer in enumerate(answers):
            span = self._trace.span(first + index, first + index + 1)
            for name, rows in answer.items():
                self.answers[name][span] = rows
        return times

    def _request(self, index: int) -> Request:
        inputs, key = self._trace.request(index), self._keys[index]
        return (inputs, None) if key < 0 or self._store is None else ((key, self._store.blank(inputs)), self._look_up)

    def _submit(self, index: int) -> Awaitable[Any]:
        inputs, prepare = self._requests[index]
        return self._engine.submit(inputs, prepare=prepare)


def _server(calls: Mapping[int, Call], given: Mapping[str, Any], answers: Mapping[str, Any]) -> Callable[[int, int], object]:
    """serve(at, size): requests at … at + size - 1 into the bound arrays, the call, its answers out."""
    if len(given) == 1 and len(answers) == 1:
        ((name, source),), ((output, sink),) = given.items(), answers.items()
        ports = {size: (call.inputs[name], call, call.outputs) for size, call in calls.items()}

        def serve_one(at: int, size: int) -> None:
            row, call, results = ports[size]
            row[...] = source[at : at + size]
            call()
            sink[at : at + size] = results[output]

        return serve_one

    def serve(at: int, size: int) -> None:
        call = calls[size]
        for name, array in call.inputs.items():
            array[...] = given[name][at : at + size]
        call()
        for name, answer in answers.items():
            answer[at : at + size] = call.outputs[name]

    return serve


def _stretched(serve: Callable[[int, int], object], factor: float) -> Callable[[int, int], object]:
    """`serve` made slower by a known factor, whatever it takes: it spins for the rest."""

    def slower(at: int, size: int) -> None:
        begin = clock()
        serve(at, size)
        until = begin + factor * (clock() - begin)
        while clock() < until:
            continue

    return slower


def _later(submit: Callable[[int], Awaitable[Any]], factor: float) -> Callable[[int], Awaitable[Any]]:
    """`submit` whose answers come later by a known factor; the loop turns meanwhile."""

    async def later(index: int) -> Any:
        begin = clock()
        answer = await submit(index)
        until = begin + factor * (clock() - begin)
        while clock() < until:
            await asyncio.sleep(0)
        return answer

    return later
