"""One arm of a race, inside its own process: loads the engine, replays blocks of the trace, checks every answer.

`open_arm` is the factory that `openinfer.worker` calls in the child. Between blocks the parent stops the process, so an idle arm takes
no core.
"""

from __future__ import annotations

import resource
import time
from typing import Any

import numpy as np
import psutil
from openinfer.profiles import process
from openinfer.tuner.service import InlineService, Service, SubmitService
from openinfer.tuner.statistics import SETTLED_OVER, is_settled
from openinfer.workloads import registry
from openinfer.workloads import trace as traces

from openinfer.config import Config
from openinfer.engine import load
from openinfer.errors import StudyError
from openinfer.frontend.float64 import discrepancy, largest

SETTLE_ROUNDS = 12


def open_arm(
    model: str, config: dict[str, Any], trace: str, oracle: str, tolerance: float, handicap: float = 1.0, submits: str = ""
) -> ArmServer:
    """The factory: paths of the model, the trace and the oracle's outputs (npz), the configuration as a nested mapping; `submits` names
    the workload whose requests come through `Engine.submit`, where they do.
    """
    return ArmServer(model, Config.parse(config), trace, oracle, tolerance, handicap, submits)


class ArmServer:
    """Serves the requests of one trace with one configuration. `handicap` stretches every answer's service time by that factor."""

    def __init__(
        self, model: str, config: Config, trace: str, oracle: str, tolerance: float, handicap: float = 1.0, submits: str = ""
    ) -> None:
        begin = time.perf_counter()
        self._engine = load(model, config)
        self._startup_s = time.perf_counter() - begin
        self._trace = traces.read(trace)
        self._tolerance = tolerance
        with np.load(oracle, allow_pickle=False) as file:
            self._expected = {name: file[name] for name in file.files}
        self._scale = {name: largest(value) for name, value in self._expected.items()}
        self._service = self._served(submits, handicap)
        self._answers = self._service.answers
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
        self._service.warm_up()
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
        span = self._trace.span(first, first + count)
        for answers in self._answers.values():
            answers[span] = _poison(answers.dtype)  # no answer is that, so one that was never written shows
        before = process.sample()
        times = self._service.replay(first, count)
        seen = process.sample().since(before)
        pool = self._engine.statistics().memory
        if pool is not None:
            seen |= {"internal_fragmentation": pool.internal_fragmentation, "external_fragmentation": pool.external_fragmentation}
        seen |= self._service.stages()
        lateness = times.lateness_ns
        return {
            "corrected": times.raw_ns if self._trace.arrival_s is None else times.corrected_ns,
            "raw": times.raw_ns,
            "error": self._error(span),
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
        self._service.close()
        self._engine.close()

    def _median(self) -> float:
        return float(np.median(self._service.back_to_back(0, self._reference).raw_ns))

    def _served(self, submits: str, handicap: float) -> Service:
        if not submits:
            return InlineService(self._engine, self._trace, self._expected, handicap)
        found = registry.get(submits)
        store = found.open_store() if found.open_store is not None else None
        return SubmitService(self._engine, self._trace, self._expected, handicap, store)

    def _error(self, span: slice) -> float:
        return max(discrepancy(self._answers[name][span], expected[span], self._scale[name]) for name, expected in self._expected.items())


def _poison(dtype: Any) -> Any:
    """A value that is no likely answer."""
    return np.finfo(dtype).max if dtype.kind == "f" else (np.iinfo(dtype).max if dtype.kind in "iu" else True)
