"""Latency by stage: the hot path writes integer timestamps, and what each request waited for is worked out afterwards."""

from __future__ import annotations

import array
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from openinfer.workloads.replay import ReplayTimes
from openinfer.workloads.requests import Call, RunCall

Nanoseconds = npt.NDArray[np.int64]
STAGES = ("corrected", "raw", "queue", "batch", "copy", "kernel")


@dataclasses.dataclass(frozen=True)
class Stamped:
    """`serve` for `replay_inline`, and when each call's kernel began and ended, by the call's first request."""

    serve: Callable[[int, int], object]
    begin_ns: array.array[int]
    end_ns: array.array[int]


def stamped(calls: Mapping[int, Call], inputs: Mapping[str, Any], requests: int) -> Stamped:
    """Serve rows of `inputs` (first axis the request) with bound calls by batch size: copy in, stamp, call, stamp, copy out.

    Answers are copied to where a caller would read them, one call's over another's: a profile keeps none.
    """
    begins, ends = array.array("q", [0]) * requests, array.array("q", [0]) * requests
    clock = time.perf_counter_ns
    answers: dict[int, dict[str, Any]] = {}
    sources: dict[int, list[tuple[Any, Any, bool]]] = {}
    for size, made in calls.items():
        # What `run` gives is fresh already.
        answers[size] = {} if isinstance(made, RunCall) else {name: np.empty_like(found) for name, found in made.outputs.items()}
        sources[size] = [(bound, inputs[name], bound.shape[:1] == (size,)) for name, bound in made.inputs.items()]

    def serve(at: int, size: int) -> None:
        call = calls[size]
        for bound, source, rows in sources[size]:
            bound[...] = source[at : at + size] if rows else source[at].reshape(bound.shape)
        begins[at] = clock()
        call()
        ends[at] = clock()
        for name, answer in answers[size].items():
            answer[...] = call.outputs[name]

    return Stamped(serve, begins, ends)


def stages(times: ReplayTimes, stamps: Stamped, max_delay_ns: int = 0) -> dict[str, Nanoseconds]:
    """Nanoseconds of each request in each stage: waiting for company (batch), waiting for the engine (queue), copies, and the kernel.

    queue + batch + copy + kernel = corrected, but for the clock readings between them.
    """
    first = np.flatnonzero(np.diff(times.start_ns, prepend=-1))
    counts = np.diff(np.append(first, len(times.start_ns)))
    begins, ends = np.array(stamps.begin_ns)[first], np.array(stamps.end_ns)[first]
    kernel = np.repeat(ends - begins, counts)
    copy = times.raw_ns - kernel
    last = np.repeat(first + counts - 1, counts)
    complete = np.minimum(times.intended_ns[last], times.intended_ns + max_delay_ns)
    batch = np.clip(np.minimum(complete, times.start_ns) - times.intended_ns, 0, None)
    queue = np.clip(times.start_ns - times.intended_ns - batch, 0, None)
    return {"corrected": times.corrected_ns, "raw": times.raw_ns, "queue": queue, "batch": batch, "copy": copy, "kernel": kernel}
