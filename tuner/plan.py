"""What a study is about, in memory: model, traffic cut to what can be replayed and answered in time, promises. Writes nothing."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.tuner.calibrate import calibrate
from openinfer.tuner.pace import Pace, measure, quantile_of, without_long_gaps
from openinfer.tuner.slo import Slo, parse_slos
from openinfer.tuner.space import Knob, space
from openinfer.workloads import registry
from openinfer.workloads import trace as traces
from openinfer.workloads.requests import batched, bindable
from openinfer.workloads.trace import Trace

from openinfer.config import Config, EngineConfig
from openinfer.errors import ConfigError, StudyError
from openinfer.frontend.dtypes import value_types
from openinfer.frontend.onnx_model import read
from openinfer.ir.graph import Graph
from openinfer.machine import host
from openinfer.passes.set_precision import fixes_arithmetic
from openinfer.runtime.conversion import Conversions
from openinfer.runtime.provenance import model_hash
from openinfer.runtime.signature import check, example

log = logging.getLogger("openinfer")

REQUESTS = 10_000  # of a workload, per trace
TOLERANCE = 1e-5
DRAWN, DRAWN_BYTES = 20_000, 48 << 20  # random requests per split, at most: more than caches hold


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides a study before it runs; two studies with the same `identity` measure the same."""

    name: str
    model: Path
    model_sha256: str
    tuning: tuple[Trace, ...]
    held_out: tuple[Trace, ...]
    pace: Pace
    tolerance: float
    slos: tuple[Slo, ...]
    accuracy: Mapping[str, float]
    knobs: tuple[Knob, ...]
    base: Config
    submits: bool = False

    @property
    def traffic(self) -> str:
        """The requests in words, for the record."""
        split = ", ".join(f"{len(group)} × {len(group[0]):,} requests {kind}" for kind, group in self._splits())
        if self.tuning[0].arrival_s is None:
            return f"{split}; back to back"
        how = " through submit" if self.submits else ""
        return f"{split}{how}; on their schedule, idle gaps cut to {self.pace.gap_s * 1e3:g} ms"

    def identity(self) -> dict[str, Any]:
        """What a journal must agree on before it is gone on with."""
        return {
            "model_sha256": self.model_sha256,
            "machine": host().fingerprint,
            "traces": [trace.digest() for _, group in self._splits() for trace in group],
            "tolerance": self.tolerance,
            "submits": self.submits,
            "base": {name: value for name, value in self.base.knobs().items() if value != Config().knobs()[name]},
            "space": {knob.name: list(knob.values) for knob in self.knobs},
        }

    def _splits(self) -> tuple[tuple[str, tuple[Trace, ...]], ...]:
        return ("to tune", self.tuning), ("held out", self.held_out)


def prepare(
    workload: str | None,
    model: str | None,
    trace: str | None,
    slo: str | None,
    objective: str | None,
    seed: int,
    known: Pace | None = None,
) -> Plan:
    """Generate or read the traces. `known` is the pace of the study that is resumed; without it the model is timed.

    Raises `StudyError`, `WorkloadError`, `ModelError`, `InputError` for what cannot be tuned.
    """
    if (workload is None) == (model is None):
        raise StudyError("found both or neither of a workload and a model; give exactly one")
    slos = tuple(parse_slos(slo)) if slo is not None else ()
    if objective is not None:
        quantile_of(objective)
    if workload is not None:
        if trace is not None:
            raise StudyError(f"workload {workload!r} brings its own traces; --trace goes with --model")
        found = registry.get(workload)
        main = found.models[found.main_model]
        path, name, tolerance, accuracy = found.model_path(), workload, main.tolerance, {main.metric: main.accuracy}
        slos, objective = slos or tuple(parse_slos(found.slo)), objective or found.objective
        graph, base, submits = read(path), found.base, found.submits
        requests = min(REQUESTS, found.requests)
        splits = found.traces("tuning", requests), found.traces("held_out", requests)
    else:
        path, name, tolerance, accuracy = Path(str(model)), Path(str(model)).stem, TOLERANCE, {}
        graph, base, submits = read(path), Config(), False
        splits = _of_trace(graph, trace) if trace is not None else _drawn(graph, seed)
    for one in (*splits[0], *splits[1]):
        check(bindable(graph.inputs, one.inputs, 1), graph.inputs)
    base, precision = _precision(path, graph, splits[0][0], tolerance, base)
    pace = known or measure(path, graph.inputs, [*splits[0], *splits[1]], objective, base)
    tuning, held_out = (tuple(without_long_gaps(one.between(0, pace.requests), pace.gap_s) for one in group) for group in splits)
    operators = tuple(sorted({node.op for node in graph.nodes}))
    knobs = tuple(space(host(), operators, batched(graph.inputs), base, precision, submits, submits and _looks_up(tuning)))
    return Plan(name, path, model_hash(path), tuning, held_out, pace, tolerance, slos, accuracy, knobs, base, submits)


def _looks_up(traces: Sequence[Trace]) -> bool:
    return any(trace.look_ups is not None and bool((trace.look_ups >= 0).any()) for trace in traces)


def _precision(path: Path, graph: Graph, trace: Trace, tolerance: float, base: Config) -> tuple[Config, str | None]:
    """The base, calibrated on the tuning trace where the model computes in float64, and the other precision that a study may try.

    The base itself keeps the model's precision: float32 has to win its race like any other knob.
    """
    if base.engine.precision != "model":
        return base, None
    if "float64" not in value_types(graph).values():
        return base, None if any(fixes_arithmetic(node) for node in graph.nodes) else "float64"
    try:
        calibrated = calibrate(path, trace, tolerance, base)
    except ConfigError as error:
        log.warning("the model stays in float64: %s", error)
        return base, None
    narrow = calibrated.engine.precision == "float32"
    return calibrated.with_knobs({"engine.precision": "model"}), "float32" if narrow else None


def _of_trace(graph: Graph, path: str) -> tuple[list[Trace], list[Trace]]:
    """A user's trace cut into a first and a second half."""
    whole = _fit(traces.read(path), graph)
    half = len(whole) // 2
    if half < 1:
        raise StudyError(f"{path}: found {len(whole)} requests; a study needs at least 2, a useful one thousands; give a longer trace")
    return [whole.between(0, half)], [whole.between(half, len(whole))]


def _fit(trace: Trace, graph: Graph) -> Trace:
    """The trace in the model's dtypes. A table's numbers are float64 more often than the model's are."""
    conversions, wanted = Conversions(EngineConfig().conversion_tolerance), {s.name: s.dtype for s in graph.inputs}
    inputs = {
        name: conversions.fit(array, name, wanted[name]) if array.dtype.kind in "biuf" and wanted.get(name, "string") != "string" else array
        for name, array in trace.inputs.items()
    }
    return dataclasses.replace(trace, inputs=inputs)


def _drawn(graph: Graph, seed: int) -> tuple[list[Trace], list[Trace]]:
    """Random requests, back to back."""
    generators = [np.random.default_rng((seed, split)) for split in (0, 1)]
    request_bytes = max(1, sum(array.nbytes for array in example(graph.inputs, generators[0], 1).values()))
    count = min(DRAWN, max(8, DRAWN_BYTES // request_bytes))

    def drawn(generator: np.random.Generator) -> Trace:
        if batched(graph.inputs):
            return Trace(example(graph.inputs, generator, count))
        each = [example(graph.inputs, generator, 1) for _ in range(count)]
        return Trace({name: np.stack([request[name] for request in each]) for name in each[0]})

    return [drawn(generators[0])], [drawn(generators[1])]
