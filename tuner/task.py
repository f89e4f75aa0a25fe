"""What a study is about: model, traffic, promises, turned into the files that trial processes read."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from openinfer.tuner.race import Course
from openinfer.tuner.slo import Slo, parse_slos
from openinfer.workloads import registry
from openinfer.workloads import trace as traces
from openinfer.workloads.trace import Trace

from openinfer.engine import model_hash
from openinfer.errors import StudyError
from openinfer.frontend.float64 import reference, widen
from openinfer.frontend.onnx_model import read
from openinfer.runtime.signature import example

REQUESTS = 10_000
BLOCK = 1_000
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Task:
    """Traces by split, with the oracle's outputs on disk; the objective is a quantile of the corrected latency."""

    name: str
    model: Path
    model_sha256: str
    operators: tuple[str, ...]
    batches: bool
    tuning: Course
    held_out: tuple[Course, ...]
    objective: str
    slos: tuple[Slo, ...]
    accuracy: Mapping[str, float]


def prepare(
    folder: Path, workload: str | None, model: str | None, trace: str | None, slo: str | None, objective: str | None, seed: int
) -> Task:
    """Generate or read the traces, compute the oracle in float64, write both below `folder`."""
    if (workload is None) == (model is None):
        raise StudyError("found both or neither of a workload and a model; give exactly one")
    accuracy: dict[str, float] = {}
    if workload is not None:
        if trace is not None:
            raise StudyError(f"workload {workload!r} brings its own traces; --trace goes with --model")
        found = registry.get(workload)
        path, name = found.model_path(), workload
        tolerance = found.models[found.main_model].tolerance
        accuracy = {found.models[found.main_model].metric: found.models[found.main_model].accuracy}
        tuning, held_out = found.traces("tuning", REQUESTS), found.traces("held_out", REQUESTS)
        slo, objective = slo or found.slo, objective or found.objective
    else:
        path, name, tolerance = Path(str(model)), Path(str(model)).stem, TOLERANCE
        tuning, held_out = _own(path, trace, seed)
    graph = read(path)
    quantile = _quantile(objective or "p99")
    block = min(BLOCK, *(len(one) for one in (*tuning, *held_out)))
    folder.mkdir(parents=True, exist_ok=True)
    courses = [
        _course(folder, f"{split}-{index}", one, path, tolerance, block, quantile)
        for split, group in (("tuning", tuning), ("held-out", held_out))
        for index, one in enumerate(group)
    ]
    batches = all(bool(s.shape) and isinstance((s.shape or ("",))[0], str) for s in graph.inputs)
    return Task(
        name,
        path,
        model_hash(path),
        tuple(sorted({node.op for node in graph.nodes})),
        batches,
        courses[0],
        tuple(courses[len(tuning) :]),
        objective or "p99",
        tuple(parse_slos(slo)) if slo else (),
        accuracy,
    )


def _own(path: Path, trace: str | None, seed: int) -> tuple[list[Trace], list[Trace]]:
    """A user's trace cut into a first and a second half, or random requests, back to back."""
    if trace is not None:
        whole = traces.read(trace)
        half = len(whole) // 2
        if half < 1:
            raise StudyError(f"{trace}: {len(whole)} requests; a study needs at least 2, a useful one thousands")
        rest = Trace(
            {n: a[half:] for n, a in whole.inputs.items()},
            None if whole.arrival_s is None else whole.arrival_s[half:] - whole.arrival_s[half],
        )
        return [whole.first(half)], [rest]
    signatures = read(path).inputs
    drawn = [example(signatures, np.random.default_rng((seed, split)), 2000) for split in (0, 1)]
    if any(len(array) != 2000 for inputs in drawn for array in inputs.values()):
        raise StudyError("random requests need inputs with a symbolic first dimension; give --trace with one request per row")
    return [Trace(drawn[0])], [Trace(drawn[1])]


def _course(folder: Path, name: str, trace: Trace, model: Path, tolerance: float, block: int, quantile: float) -> Course:
    place, oracle = folder / f"{name}.npz", folder / f"{name}.oracle.npz"
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in trace.inputs.values())).hexdigest()
    if not (
        place.exists() and oracle.exists() and (folder / f"{name}.sha256").exists() and (folder / f"{name}.sha256").read_text() == digest
    ):
        traces.write(Trace(trace.inputs, trace.arrival_s), place)
        outputs = reference(widen(onnx.load(model)), trace.inputs)
        expected: dict[str, Any] = {str(key): np.asarray(value) for key, value in outputs.items()}
        with oracle.open("wb") as file:
            np.savez(file, **expected)
        (folder / f"{name}.sha256").write_text(digest)
    return Course(str(model.resolve()), str(place.resolve()), str(oracle.resolve()), tolerance, len(trace), block, quantile)


def _quantile(objective: str) -> float:
    try:
        percentile = float(objective.removeprefix("p"))
    except ValueError:
        percentile = -1.0
    if not objective.startswith("p") or not 0 < percentile < 100:
        raise StudyError(f"unknown objective {objective!r}; allowed: a percentile of the latency such as p50, p99 or p99.9")
    return percentile / 100
