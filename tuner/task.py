"""What a study is about: model, traffic, promises, turned into the files that trial processes read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from openinfer.tuner.oracle import expected_outputs
from openinfer.tuner.pace import REQUESTS, Pace, affordable, pace, seconds_per_call, without_long_gaps
from openinfer.tuner.race import Course
from openinfer.tuner.slo import Slo, parse_slos
from openinfer.workloads import registry
from openinfer.workloads import trace as traces
from openinfer.workloads.requests import batched, bindable
from openinfer.workloads.trace import Trace

from openinfer.config import write_atomically
from openinfer.engine import model_hash
from openinfer.errors import StudyError
from openinfer.frontend.onnx_model import read
from openinfer.ir.graph import Graph
from openinfer.runtime.signature import check, example

TOLERANCE = 1e-5
DRAWN, DRAWN_BYTES = 2_000, 128 << 20  # random requests per split, at most


@dataclasses.dataclass(frozen=True)
class Task:
    """Traces by split, with the oracle's outputs on disk; the objective is a quantile of the corrected latency."""

    name: str
    model: Path
    model_sha256: str
    operators: tuple[str, ...]
    batches: bool
    double: bool
    tuning: Course
    held_out: tuple[Course, ...]
    objective: str
    slos: tuple[Slo, ...]
    accuracy: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class _Traffic:
    """Traces of both splits and what the workload promises about them."""

    tuning: list[Trace]
    held_out: list[Trace]
    tolerance: float
    slo: str | None
    objective: str | None
    accuracy: Mapping[str, float]


def prepare(
    folder: Path, workload: str | None, model: str | None, trace: str | None, slo: str | None, objective: str | None, seed: int
) -> Task:
    """Generate or read the traces, compute the oracle in float64, write both below `folder`."""
    if (workload is None) == (model is None):
        raise StudyError("found both or neither of a workload and a model; give exactly one")
    slos = tuple(parse_slos(slo)) if slo else ()
    if objective is not None:
        quantile_of(objective)
    if workload is not None:
        if trace is not None:
            raise StudyError(f"workload {workload!r} brings its own traces; --trace goes with --model")
        path, name = registry.get(workload).model_path(), workload
        graph, traffic = read(path), _of_workload(workload)
    else:
        path, name = Path(str(model)), Path(str(model)).stem
        graph = read(path)
        traffic = _Traffic(*_own(path, graph, trace, seed), TOLERANCE, None, None, {})
    every = [*traffic.tuning, *traffic.held_out]
    for one in every:
        check(bindable(graph.inputs, one.inputs, 1), graph.inputs)
    call_s = seconds_per_call(str(path), every[0])
    every = [without_long_gaps(one, call_s) for one in every]
    wanted = objective or traffic.objective
    chosen = pace(every, call_s, None if wanted is None else quantile_of(wanted))
    names = [f"{split}-{i}" for split, group in (("tuning", traffic.tuning), ("held-out", traffic.held_out)) for i in range(len(group))]
    folder.mkdir(parents=True, exist_ok=True)
    courses = [_course(folder, place, one, path, traffic.tolerance, chosen) for place, one in zip(names, every, strict=True)]
    if not slos and traffic.slo:
        slos = tuple(parse_slos(traffic.slo))
    operators = tuple(sorted({node.op for node in graph.nodes}))
    double = any(value.dtype.name == "float64" for value in graph.constants.values()) or any(s.dtype == "float64" for s in graph.inputs)
    first, rest = courses[0], tuple(courses[len(traffic.tuning) :])
    return Task(
        name, path, model_hash(path), operators, batched(graph.inputs), double, first, rest, chosen.objective, slos, traffic.accuracy
    )


def quantile_of(objective: str) -> float:
    """0.99 of "p99"; `StudyError` where it is no percentile."""
    try:
        percentile = float(objective.removeprefix("p"))
    except ValueError:
        percentile = -1.0
    if not objective.startswith("p") or not 0 < percentile < 100:
        raise StudyError(f"unknown objective {objective!r}; allowed: a percentile of the latency such as p50, p99 or p99.9")
    return percentile / 100


def _of_workload(name: str) -> _Traffic:
    found = registry.get(name)
    main = found.models[found.main_model]
    tuning, held_out = found.traces("tuning", REQUESTS), found.traces("held_out", REQUESTS)
    return _Traffic(tuning, held_out, main.tolerance, found.slo, found.objective, {main.metric: main.accuracy})


def _own(path: Path, graph: Graph, trace: str | None, seed: int) -> tuple[list[Trace], list[Trace]]:
    """A user's trace cut into a first and a second half, or random requests, back to back; as many as the oracle can answer in time."""
    together = 32 if batched(graph.inputs) else 1
    if trace is not None:
        whole = traces.read(trace)
        half = len(whole) // 2
        if half < 1:
            raise StudyError(f"{trace}: {len(whole)} requests; a study needs at least 2, a useful one thousands")
        together = min(together, half)
        halves = whole.between(0, half), whole.between(half, len(whole))
        first = bindable(graph.inputs, whole.inputs, together)
        check(first, graph.inputs)  # here, because the oracle has no words for a wrong shape
        count = affordable(str(path), first, together)
        return [halves[0].between(0, count)], [halves[1].between(0, count)]
    generators = [np.random.default_rng((seed, split)) for split in (0, 1)]
    some = example(graph.inputs, generators[0], together)
    request_bytes = max(1.0, sum(array.nbytes for array in some.values()) / together)
    count = min(DRAWN, max(8, int(DRAWN_BYTES / request_bytes)), affordable(str(path), some, together))
    if batched(graph.inputs):
        return [Trace(example(graph.inputs, generators[0], count))], [Trace(example(graph.inputs, generators[1], count))]

    def drawn(generator: np.random.Generator) -> Trace:
        each = [example(graph.inputs, generator, 1) for _ in range(count)]
        return Trace({name: np.stack([request[name] for request in each]) for name in each[0]})

    return [drawn(generators[0])], [drawn(generators[1])]


def _course(folder: Path, name: str, trace: Trace, model: Path, tolerance: float, chosen: Pace) -> Course:
    """The trace and its oracle on disk; an oracle that is there and belongs to this model and trace is kept."""
    place, oracle, mark = folder / f"{name}.npz", folder / f"{name}.oracle.npz", folder / f"{name}.sha256"
    digest = f"{model_hash(model)} {trace.digest()}"
    if not (place.exists() and oracle.exists() and mark.exists() and mark.read_text() == digest):
        mark.unlink(missing_ok=True)
        traces.write(Trace(trace.inputs, trace.arrival_s), place)
        write_atomically(oracle, traces.npz_bytes(expected_outputs(onnx.load(model), read(model).inputs, trace.inputs)))
        write_atomically(mark, digest)
    model_file, trace_file, oracle_file = (str(file.resolve()) for file in (model, place, oracle))
    return Course(model_file, trace_file, oracle_file, tolerance, len(trace), chosen.block, quantile_of(chosen.objective), chosen.block_s)
