"""One arm of a race, inside its own process: loads the engine, replays blocks of the trace, checks every answer.

`open_arm` is the factory that `openinfer.worker` calls in the child. Between blocks the parent stops the process, so an idle arm takes
no core.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import psutil
from openinfer.profiles import process
from openinfer.tuner.statistics import SETTLED_OVER, is_settled
from openinfer.workloads import trace as traces
from openinfer.workloads.replay import ReplayTimes, replay_inline
from openinfer.workloads.requests import Call, batched, bindable, call_on

from openinfer.config import Config
from openinfer.engine import load
from openinfer.errors import StudyError
from openinfer.frontend.float64 import discrepancy, largest

SETTLE_ROUNDS = 12


def open_arm(model: str, config: dict[str, Any], trace: str, oracle: str, tolerance: float, handicap: float = 1.0) -> ArmServer:
    """The factory: paths of the model, the trace and the oracle's outputs (npz), the configuration as a nested mapping."""
    return ArmServer(model, Config.parse(config), trace, oracle, tolerance, handicap)


class ArmServer:
    """Serves the requests of one trace with one configuration. `handicap` stretches every answer's service time by that factor."""

    def __init__(self, model: str, config: Config, trace: str, oracle: str, tolerance: float, handicap: float = 1.0) -> None:
        begin = time.perf_counter()
        self._engine = load(model, config)
        self._startup_s = time.perf_counter() - begin
        self._trace = traces.read(trace)
        self._tolerance = tolerance
        self._handicap = handicap
        with np.load(oracle, allow_pickle=False) as file:
            self._expected = {name: file[name] for name in file.files}
        self._scale = {name: largest(value) for name, value in self._expected.items()}
        self._scheduler = config.scheduler
        joins = batched(self._engine.inputs)
        self._largest = min(self._scheduler.max_batch, len(self._trace)) if joins else 1
        self._calls = {
            size: call_on(self._engine, bindable(self._engine.inputs, self._trace.inputs, size)) for size in range(1, self._largest + 1)
        }
        self._answers = {name: np.empty_like(value, dtype=self._calls[1].outputs[name].dtype) for name, value in self._expected.items()}
        self._settled: list[float] = []
        self._switches = 0
        self._reference = 0

    def settle(self, count: int) -> dict[str, Any]:
        """Serve the first requests back to back until their median service time has settled; `StudyError` where it never does.

        The same requests in the same batches each time, so that what changes is the process and not the traffic.
        """
        if len(self._trace) < count:
            raise StudyError(f"the trace has {len(self._trace)} requests; a block needs {count}; give a longer trace")
        self._reference = max(1, count // 4) if self._trace.arrival_s is None else count  # a scheduled block is mostly idle
        for _ in range(SETTLE_ROUNDS):
            self._settled.append(self._median())
            if is_settled(self._settled):
                self._switches = int(psutil.Process().num_ctx_switches().involuntary)
                return {}
        shown = ", ".join(f"{value / 1e3:.2f}" for value in self._settled)
        raise StudyError(f"the service time does not settle: medians of {shown} µs in a row; close what else runs on this machine")

    def block(self, first: int, count: int) -> dict[str, Any]:
        """Replay requests first … first + count - 1 on their schedule.

        Corrected and raw latencies in ns, the largest relative error, what the kernel and the pool say of the process meanwhile, lateness
        of the generator.
        """
        for answers in self._answers.values():
            answers[first : first + count] = _poison(answers.dtype)  # no answer is that, so one that was never written shows
        before = process.sample()
        times = self._replay(first, count)
        seen = process.sample().since(before)
        pool = self._engine.statistics().memory
        if pool is not None:
            seen |= {"internal_fragmentation": pool.internal_fragmentation, "external_fragmentation": pool.external_fragmentation}
        lateness = times.lateness_ns
        return {
            "corrected": times.raw_ns if self._trace.arrival_s is None else times.corrected_ns,
            "raw": times.raw_ns,
            "error": self._error(first, first + count),
            "seen": seen,
            "lateness": np.percentile(lateness, [50, 99]).astype(np.int64),
        }

    def facts(self) -> dict[str, Any]:
        """Peak resident bytes, start-up, forced context switches since it had settled, warm-up replays, and the service time now ÷ then.

        Both service times are the fastest of three replays: noise of the host only adds.
        """
        drift = min(self._median() for _ in range(SETTLED_OVER)) / min(self._settled[-SETTLED_OVER:])
        return {
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "startup_s": self._startup_s,
            "involuntary": int(psutil.Process().num_ctx_switches().involuntary) - self._switches,
            "warm_up_replays": len(self._settled),
            "drift": drift,
        }

    def close(self) -> None:
        """Let the engine go."""
        self._engine.close()

    def _replay(self, first: int, count: int) -> ReplayTimes:
        if self._trace.arrival_s is None:
            return self._back_to_back(first, count)
        due = self._trace.arrival_s[first : first + count]
        delay_us = self._scheduler.max_delay_us
        # A millisecond of idling first: the arm has just been woken.
        return replay_inline(due - due[0] + 1e-3, self._serve(first, count), max_batch=self._largest, max_delay_us=delay_us)

    def _back_to_back(self, first: int, count: int) -> ReplayTimes:
        return replay_inline(np.zeros(count), self._serve(first, count), max_batch=self._largest)

    def _serve(self, first: int, count: int) -> Callable[[int, int], object]:
        stop = first + count
        serve = _server(
            self._calls,
            {name: array[first:stop] for name, array in self._trace.inputs.items()},
            {name: answers[first:stop] for name, answers in self._answers.items()},
        )
        return serve if self._handicap == 1.0 else _stretched(serve, self._handicap)

    def _median(self) -> float:
        return float(np.median(self._back_to_back(0, self._reference).raw_ns))

    def _error(self, first: int, stop: int) -> float:
        return max(
            discrepancy(self._answers[name][first:stop], expected[first:stop], self._scale[name])
            for name, expected in self._expected.items()
        )


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


def _poison(dtype: Any) -> Any:
    """A value that is no likely answer."""
    return np.finfo(dtype).max if dtype.kind == "f" else (np.iinfo(dtype).max if dtype.kind in "iu" else True)


def _stretched(serve: Callable[[int, int], object], factor: float) -> Callable[[int, int], object]:
    """`serve` made slower by a known factor, whatever it takes: it spins for the rest."""
    clock = time.perf_counter_ns

    def slower(at: int, size: int) -> None:
        begin = clock()
        serve(at, size)
        until = begin + factor * (clock() - begin)
        while clock() < until:
            continue

    return slower
