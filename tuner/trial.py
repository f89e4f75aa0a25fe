"""One arm of a race, inside its own process: loads the engine, replays blocks of the trace, checks every answer.

`open_trial` is the factory that `openinfer.worker` calls in the child. Between blocks the parent stops the process, so an idle arm takes
no core.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import psutil
from openinfer.workloads import trace as traces
from openinfer.workloads.replay import replay_inline

from openinfer.config import Config
from openinfer.engine import load
from openinfer.errors import StudyError


def open_trial(model: str, config: dict[str, Any], trace: str, oracle: str, tolerance: float) -> Trial:
    """The factory: paths of the model, the trace and the oracle's outputs (npz), the configuration as a nested mapping."""
    return Trial(model, Config.parse(config), trace, oracle, tolerance)


class Trial:
    """Serves the requests of one trace with one configuration."""

    def __init__(self, model: str, config: Config, trace: str, oracle: str, tolerance: float) -> None:
        begin = time.perf_counter()
        self._engine = load(model, config)
        self._startup_s = time.perf_counter() - begin
        self._trace = traces.read(trace)
        self._tolerance = tolerance
        with np.load(oracle, allow_pickle=False) as file:
            self._expected = {name: file[name] for name in file.files}
        self._scale = {name: float(np.abs(value).max(initial=0.0)) or 1.0 for name, value in self._expected.items()}
        self._scheduler = config.scheduler
        self._calls: dict[int, Any] = {}
        largest = min(self._scheduler.max_batch, len(self._trace))
        for count in range(1, largest + 1):
            self._calls[count] = self._engine.bind({name: array[:count].copy() for name, array in self._trace.inputs.items()})
        self._answers = {name: np.empty_like(value, dtype=self._calls[1].outputs[name].dtype) for name, value in self._expected.items()}

    def block(self, first: int, count: int) -> dict[str, Any]:
        """Replay requests first … first + count - 1 on their schedule; corrected and raw latencies in ns, the largest relative error."""
        given, calls, answers = self._trace.inputs, self._calls, self._answers
        names = list(given)
        outputs = list(answers)

        def serve(at: int, size: int) -> None:
            call = calls[size]
            start = first + at
            for name in names:
                call.inputs[name][...] = given[name][start : start + size]
            call()
            for name in outputs:
                answers[name][start : start + size] = call.outputs[name]

        stop = first + count
        for name in outputs:
            answers[name][first:stop] = np.nan
        if self._trace.arrival_s is None:
            times = replay_inline(np.zeros(count), serve, max_batch=self._scheduler.max_batch)
            corrected = times.raw_ns
        else:
            due = self._trace.arrival_s[first:stop]
            # A millisecond of idling first: the arm has just been woken.
            times = replay_inline(
                due - due[0] + 1e-3, serve, max_batch=self._scheduler.max_batch, max_delay_us=self._scheduler.max_delay_us
            )
            corrected = times.corrected_ns
        lateness = times.start_ns[times.batch == 1] - times.intended_ns[times.batch == 1]
        return {
            "corrected": corrected,
            "raw": times.raw_ns,
            "error": self._error(first, stop),
            "lateness": np.percentile(lateness, [50, 99]).astype(np.int64) if len(lateness) else np.zeros(2, np.int64),
        }

    def facts(self) -> dict[str, Any]:
        """Resident bytes, start-up, and the context switches of the process so far."""
        process = psutil.Process()
        return {
            "resident_bytes": int(process.memory_info().rss),
            "startup_s": self._startup_s,
            "involuntary": int(process.num_ctx_switches().involuntary),
        }

    def close(self) -> None:
        """Let the engine go."""
        self._engine.close()

    def _error(self, first: int, stop: int) -> float:
        worst = 0.0
        for name, expected in self._expected.items():
            difference = np.abs(self._answers[name][first:stop] - expected[first:stop])
            if not np.isfinite(difference).all():
                return float("inf")
            worst = max(worst, float(difference.max(initial=0.0)) / self._scale[name])
        return worst

    def check_fits(self, count: int) -> dict[str, Any]:
        """`StudyError` where the trace has fewer than `count` requests."""
        if len(self._trace) < count:
            raise StudyError(f"the trace has {len(self._trace)} requests; a block needs {count}; give a longer trace")
        return {}
