"""From the laps of the final race to the record of the study: verdict, promises, trust, arms, steps, curves."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.profiles.study_record import (
    SCHEMA_VERSION,
    Arm,
    Curve,
    Interval,
    KnobStep,
    SandboxPrice,
    Series,
    SloCheck,
    StudyRecord,
    Trial,
    Trust,
    Verdict,
)
from openinfer.tuner.finalists import NO_SANDBOX, Finalists, step_name
from openinfer.tuner.race import Lap
from openinfer.tuner.space import Knob
from openinfer.tuner.statistics import effect, level, noise_floor, round_log_ratios
from openinfer.tuner.task import Task
from openinfer.tuner.verdict import judge

from openinfer.config import Config
from openinfer.machine import host
from openinfer.version import __version__

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999)
DRIFT_LIMIT = 0.1  # more change than this within a process, and the report says that it was not steady
SHOWN = ("default", "winner", "runner-up")

Laps = Mapping[str, Sequence[Lap]]


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """What surrounds the race: how the study was called, when, how long it took, the share of time that the host took away, and why there
    is no winner, where there is none.
    """

    command: str
    seed: int
    started_at: str
    duration_s: float
    steal_share: float
    config_path: str
    nothing: str


def assemble(
    task: Task, trials: Sequence[Trial], finalists: Finalists, laps: Laps, knobs: Sequence[Knob], around: Circumstances
) -> StudyRecord:
    """The whole record; pure."""
    shown = [name for name in SHOWN if name in laps]
    samples = {name: np.concatenate([lap.corrected for lap in laps[name]]) for name in shown}
    slos = [slo.check(samples[name], name, "held-out", distinct(task, laps[name])) for slo in task.slos for name in shown]
    passed = "winner" not in laps or max(lap.error for lap in laps["winner"]) <= task.tuning.tolerance
    verdict = judge_race(task.objective, laps, passed, [check for check in slos if check.arm != "runner-up"], around.nothing)
    arms = finalists.arms(task.base)
    return StudyRecord(
        schema_version=SCHEMA_VERSION,
        workload=task.name,
        model=str(task.model),
        model_sha256=task.model_sha256,
        command=around.command,
        seed=around.seed,
        started_at=around.started_at,
        duration_s=around.duration_s,
        verdict=verdict,
        slos=slos,
        trust=_trust(task, laps, around),
        arms=[_arm(name, laps[name], arms[name].knobs()) for name in shown],
        steps=_steps(finalists, laps, knobs),
        trials=list(trials),
        curves=[_curve(name, laps[name]) for name in shown],
        series=[_series(name, laps[name]) for name in shown],
        accuracy=dict(task.accuracy),
        environment={**environment(), "traffic": task.traffic},
        config_path=around.config_path,
        sandbox=_sandbox(laps, task.base, arms),
    )


def distinct(task: Task, laps: Sequence[Lap]) -> int:
    """Different held-out requests that an arm has answered."""
    courses = task.held_out
    served = {(number % len(courses), first) for number, lap in enumerate(laps) for first in lap.firsts}
    return len(served) * courses[0].block


def judge_race(objective: str, laps: Laps, output_passed: bool = True, slos: Sequence[SloCheck] = (), nothing: str = "") -> Verdict:
    """The verdict on "winner" against "default", with the control "twin"; `nothing` says why there is no winner."""
    objectives = {name: [lap.objective for lap in arm] for name, arm in laps.items()}
    floor = noise_floor(round_log_ratios(objectives["default"], objectives["twin"]))
    ratio = effect(objectives["default"], objectives["winner"]) if "winner" in objectives else None
    return judge(ratio, floor, objective=objective, output_passed=output_passed, slos=slos, nothing=nothing)


def environment() -> dict[str, str]:
    """Versions and the machine."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite", "onnx")}
    machine = host()
    return {
        "openinfer": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": machine.cpu,
        "isa": machine.isa,
        "processors": str(len(machine.processors)),
        **versions,
    }


def _trust(task: Task, laps: Laps, around: Circumstances) -> Trust:
    every = [lap for arm in laps.values() for lap in arm]
    default, twin = ([lap.objective for lap in laps[name]] for name in ("default", "twin"))
    lateness = np.max([lap.lateness for lap in laps["default"]], axis=0)
    worst, tolerance = max(lap.error for lap in every), task.tuning.tolerance
    machine, drift = drifts([[float(lap.facts["drift"]) for lap in laps[name]] for name in laps])
    replays = [int(lap.facts["warm_up_replays"]) for lap in every]
    settled = f"{min(replays)} to {max(replays)}" if min(replays) < max(replays) else str(replays[0])
    note = (
        f"every process settled after {settled} warm-up replays; between then and the end of its race the service "
        f"time changed by at most {drift:.1%} beside the others of its round (the worst of {len(every)} processes), and that of all of a "
        f"round, which is the machine, by at most {machine:.1%}"
    )
    return Trust(
        noise_floor=noise_floor(round_log_ratios(default, twin)),
        rounds=len(default),
        steady_state=drift <= DRIFT_LIMIT,
        steady_state_note=note,
        drift=drift,
        lateness_p50_ns=int(lateness[0]),
        lateness_p99_ns=int(lateness[1]),
        steal_share=around.steal_share,
        involuntary_switches=sum(int(lap.facts["involuntary"]) for lap in every),
        output_max_error=worst,
        output_tolerance=tolerance,
        output_passed=worst <= tolerance,
        samples=int(sum(len(lap.corrected) for lap in every)),
    )


def drifts(arms: Sequence[Sequence[float]]) -> tuple[float, float]:
    """(machine, process): the largest change of a round's median, and of a process beside that median, as fractions.

    `arms` holds, by arm and round, a process's service time at the end ÷ after warming up. Where all processes of a round change together,
    the machine did, and a paired comparison loses nothing by it; a process that changes alone was not steady.
    """
    logs = np.log(np.asarray(arms, float))
    shared = np.median(logs, axis=0)
    machine, process = float(np.abs(shared).max()), float(np.abs(logs - shared).max())
    return float(np.expm1(machine)), float(np.expm1(process))


def _steps(finalists: Finalists, laps: Laps, knobs: Sequence[Knob]) -> list[KnobStep]:
    """Knob by knob from the default to the winner, each against the arm before it; without a ratio where those were not raced."""
    by_name = {knob.name: knob for knob in knobs}
    last = len(finalists.path)
    arms = ["default", *(step_name(length) for length in range(1, last)), "winner"]
    steps = []
    for index, (name, value) in enumerate(finalists.path.items()):
        before, after = (laps.get(arm) for arm in arms[index : index + 2])
        ratio = None if before is None or after is None else effect([lap.objective for lap in before], [lap.objective for lap in after])
        steps.append(KnobStep(name, by_name[name].values[0], value, ratio, by_name[name].mechanism))
    return steps


def _arm(name: str, laps: Sequence[Lap], knobs: dict[str, Any]) -> Arm:
    """One configuration as the final race saw it."""
    return Arm(
        name=name,
        knobs=knobs,
        objective=level([lap.objective for lap in laps]),
        p50_ns=level([[float(np.median(lap.corrected))] for lap in laps]),
        p99_ns=_tail(laps, 0.99),
        p999_ns=_tail(laps, 0.999),
        peak_bytes=max(int(lap.facts["peak_bytes"]) for lap in laps),
        startup_s=float(np.median([lap.facts["startup_s"] for lap in laps])),
        max_error=max(lap.error for lap in laps),
    )


def _sandbox(laps: Laps, base: Config, arms: Mapping[str, Config]) -> SandboxPrice | None:
    """The winner beside itself without a sandbox; the default, where there is no winner."""
    boxed = "winner" if "winner" in arms else "default"
    if NO_SANDBOX not in laps or boxed not in laps:
        return None
    outside, inside = laps[NO_SANDBOX], laps[boxed]
    objectives = effect([lap.objective for lap in outside], [lap.objective for lap in inside])
    medians = effect([_median(lap) for lap in outside], [_median(lap) for lap in inside])
    without = _arm(NO_SANDBOX, laps[NO_SANDBOX], arms[NO_SANDBOX].knobs())
    return SandboxPrice(base.sandbox.mode, boxed, without, objectives, medians)


def _median(lap: Lap) -> list[float]:
    return [float(np.median(lap.corrected))]


def _tail(laps: Sequence[Lap], quantile: float) -> Interval | None:
    if min(len(lap.corrected) for lap in laps) * (1 - quantile) < 1:
        return None
    return level([[float(np.quantile(lap.corrected, quantile))] for lap in laps])


def _series(name: str, laps: Sequence[Lap]) -> Series:
    blocks = [(number, seen) for number, lap in enumerate(laps) for seen in lap.seen]
    names = dict.fromkeys(key for _, seen in blocks for key in seen)
    return Series(name, [number for number, _ in blocks], {key: [float(seen[key]) for _, seen in blocks] for key in names})


def _curve(name: str, laps: Sequence[Lap]) -> Curve:
    corrected, raw = (np.concatenate([getattr(lap, kind) for lap in laps]) for kind in ("corrected", "raw"))
    quantiles = [q for q in QUANTILES if (1 - q) * len(corrected) >= 1]
    corrected_ns, raw_ns = ([int(v) for v in np.quantile(values, quantiles)] for values in (corrected, raw))
    return Curve(name, "held-out", quantiles, corrected_ns, raw_ns, len(corrected))
