"""The record of a study: what `tuner` writes as `study.json` and `reports` renders. Plain data, versioned.

Times are integers in nanoseconds unless the name says otherwise; ratios are candidate ÷ default, so below 1 is a gain.
Intervals are 99% unless `confidence` says otherwise.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from openinfer.config import write_atomically
from openinfer.errors import StudyError

SCHEMA_VERSION = 4

VerdictKind = Literal["ADOPT", "KEEP DEFAULT", "INCONCLUSIVE"]
SloStatus = Literal["met", "not met", "undecided"]


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate with its confidence bounds."""

    estimate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the held-out final race says. `ratio` is winner ÷ default of the objective."""

    kind: VerdictKind
    sentence: str
    objective: str
    unit: str
    ratio: Interval | None
    confidence: float


@dataclasses.dataclass(frozen=True)
class SloCheck:
    """One promise about a tail, judged by the exact binomial bound on `samples` answers to `distinct` different requests."""

    expression: str
    arm: str
    scenario: str
    quantile: float
    limit_ns: int
    status: SloStatus
    samples: int
    violations: int
    observed_ns: int
    upper_ns: int | None
    distinct: int


@dataclasses.dataclass(frozen=True)
class Trust:
    """Why the figures may be believed. `rounds` are the fresh processes of each arm; `drift` is the largest change of the service time
    within one process after it had settled."""

    noise_floor: float
    rounds: int
    steady_state: bool
    steady_state_note: str
    drift: float
    lateness_p50_ns: int
    lateness_p99_ns: int
    steal_share: float
    involuntary_switches: int
    output_max_error: float
    output_tolerance: float
    output_passed: bool
    samples: int


@dataclasses.dataclass(frozen=True)
class Arm:
    """A configuration as it ran in the final race. A percentile is `None` where one process has too few answers for one to lie above it."""

    name: str
    knobs: dict[str, Any]
    objective: Interval
    p50_ns: Interval
    p99_ns: Interval | None
    p999_ns: Interval | None
    peak_bytes: int
    startup_s: float
    max_error: float


@dataclasses.dataclass(frozen=True)
class SandboxPrice:
    """What the sandbox of one arm costs: the ratios are that arm ÷ `without`, the same configuration outside a sandbox, raced beside it."""

    mode: str
    arm: str
    without: Arm
    objective: Interval
    p50: Interval


@dataclasses.dataclass(frozen=True)
class KnobStep:
    """One step on the way from default to winner: its own ratio and why it works."""

    name: str
    default: Any
    winner: Any
    ratio: Interval | None
    mechanism: str


@dataclasses.dataclass(frozen=True)
class Trial:
    """One measured candidate of the search."""

    number: int
    state: Literal["complete", "pruned", "failed"]
    knobs: dict[str, Any]
    objective: float | None
    ratio: Interval | None
    started_s: float
    duration_s: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Curve:
    """Percentile curve of one arm in one scenario; `corrected` counts from the intended arrival, `raw` from the start of the call."""

    arm: str
    scenario: str
    quantiles: list[float]
    corrected_ns: list[int]
    raw_ns: list[int]
    samples: int


@dataclasses.dataclass(frozen=True)
class Series:
    """What was seen of one arm's processes, block by block of the final race, in the order in which they ran.

    `rounds` names the process (a fresh one each round). `values` by name: `resident_bytes`, `waiting` (share of the time in which a thread
    could run and had no processor), `forced_switches`, what the memory pool says of itself, and where requests come through
    `Engine.submit`, p99 of each wait (`queue_p99_ns`, …) and `batch_fill`, over the latest requests that the scheduler has on record.
    """

    arm: str
    rounds: list[int]
    values: dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class StudyRecord:
    """All that a report needs."""

    schema_version: int
    workload: str
    model: str
    model_sha256: str
    command: str
    seed: int
    started_at: str
    duration_s: float
    verdict: Verdict
    slos: list[SloCheck]
    trust: Trust
    arms: list[Arm]
    steps: list[KnobStep]
    trials: list[Trial]
    curves: list[Curve]
    series: list[Series]
    accuracy: dict[str, float]
    environment: dict[str, str]
    config_path: str
    sandbox: SandboxPrice | None = None  # where the model runs in one

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def load(cls, path: Path) -> StudyRecord:
        """Read `study.json`; `StudyError` where it is missing or of another schema."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or f"not JSON: {error}"
            raise StudyError(f"cannot read the study {str(path)!r}: {reason}; give a folder that `openinfer tune` wrote") from None
        found = values.get("schema_version") if isinstance(values, dict) else None
        if found != SCHEMA_VERSION:
            raise StudyError(f"{path}: {found=}, allowed: schema version {SCHEMA_VERSION}; tune again with this version")
        try:
            record: StudyRecord = _build(cls, values)
        except (TypeError, AttributeError) as error:
            raise StudyError(f"{path}: damaged record: {error}; resume or repeat the study") from None
        return record


def _build(kind: Any, values: Any) -> Any:
    """A dataclass from `dataclasses.asdict` of one, nested ones included."""
    nested = {
        "verdict": Verdict,
        "trust": Trust,
        "slos": SloCheck,
        "arms": Arm,
        "steps": KnobStep,
        "trials": Trial,
        "curves": Curve,
        "series": Series,
        "ratio": Interval,
        "objective": Interval,
        "p50_ns": Interval,
        "p99_ns": Interval,
        "p999_ns": Interval,
        "sandbox": SandboxPrice,
        "without": Arm,
        "p50": Interval,
    }
    built = {}
    for name, value in values.items():
        target = nested.get(name)
        if target is not None and isinstance(value, dict):
            value = _build(target, value)
        elif target is not None and isinstance(value, list):
            value = [_build(target, item) for item in value]
        built[name] = value
    return kind(**built)
