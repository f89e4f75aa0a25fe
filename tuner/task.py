"""A planned study on disk: the traces and the oracle's answers, as the processes of a race read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import onnx
from openinfer.tuner.oracle import expected_outputs
from openinfer.tuner.pace import quantile_of
from openinfer.tuner.plan import Plan
from openinfer.tuner.race import Course
from openinfer.tuner.slo import Slo
from openinfer.workloads import trace as traces
from openinfer.workloads.trace import Trace

from openinfer.config import Config, write_atomically
from openinfer.frontend.onnx_model import read


@dataclasses.dataclass(frozen=True)
class Task:
    """What a race needs to know: `base`, the configuration that others are compared with; courses by split; the objective is a quantile of
    the corrected latency.
    """

    name: str
    model: Path
    model_sha256: str
    base: Config
    tuning: Course
    held_out: tuple[Course, ...]
    objective: str
    slos: tuple[Slo, ...]
    accuracy: Mapping[str, float]
    traffic: str


def write(plan: Plan, folder: Path) -> Task:
    """Write what is not there yet. `StudyError` for outputs that cannot be compared request by request."""
    folder.mkdir(parents=True, exist_ok=True)
    tuning = [_course(folder, f"tuning-{index}", trace, plan) for index, trace in enumerate(plan.tuning)]
    held_out = [_course(folder, f"held-out-{index}", trace, plan) for index, trace in enumerate(plan.held_out)]
    return Task(
        name=plan.name,
        model=plan.model,
        model_sha256=plan.model_sha256,
        base=plan.base,
        tuning=tuning[0],
        held_out=tuple(held_out),
        objective=plan.pace.objective,
        slos=plan.slos,
        accuracy=plan.accuracy,
        traffic=plan.traffic,
    )


def _course(folder: Path, name: str, trace: Trace, plan: Plan) -> Course:
    """The trace and its oracle; an oracle that is there and belongs to this model and trace is kept."""
    place, oracle, mark = folder / f"{name}.npz", folder / f"{name}.oracle.npz", folder / f"{name}.sha256"
    digest = f"{plan.model_sha256} {trace.digest()}"
    if not (place.exists() and oracle.exists() and mark.exists() and mark.read_text() == digest):
        mark.unlink(missing_ok=True)
        answers = expected_outputs(onnx.load(plan.model), read(plan.model).inputs, trace.inputs)
        traces.write(dataclasses.replace(trace, labels=None), place)
        write_atomically(oracle, traces.npz_bytes(answers))
        write_atomically(mark, digest)
    return Course(
        model=str(plan.model.resolve()),
        trace=str(place.resolve()),
        oracle=str(oracle.resolve()),
        tolerance=plan.tolerance,
        requests=len(trace),
        block=plan.pace.block,
        quantile=quantile_of(plan.pace.objective),
        block_s=plan.pace.block_s,
        submits=plan.name if plan.submits else "",
    )
