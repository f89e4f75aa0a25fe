"""A study: search on the tuning trace, race the best on held-out traffic in fresh processes, say the verdict, write the configuration."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.profiles.study_record import (
    SCHEMA_VERSION,
    Arm,
    Curve,
    Interval,
    KnobStep,
    StudyRecord,
    Trial,
    Trust,
)
from openinfer.tuner.journal import Journal
from openinfer.tuner.race import Lap, processes, race
from openinfer.tuner.space import Knob, space
from openinfer.tuner.statistics import block_effect, effect, level, noise_floor, round_log_ratios
from openinfer.tuner.task import Task, prepare
from openinfer.tuner.verdict import judge

from openinfer.config import Config
from openinfer.errors import OpenInferError, StudyError
from openinfer.machine import host
from openinfer.version import __version__

ROUNDS = 5
SEARCH_TURNS, RACE_TURNS = 6, 6
PROCESS_SD = 0.01  # what one process can be off, as a fraction; only ranks candidates, never decides
RACE_SHARE = 0.5  # of a time budget is kept for the final race
QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)

Progress = Callable[[str, float, float | None], None]


@dataclasses.dataclass(frozen=True)
class Study:
    """A finished study and where it was written."""

    record: StudyRecord
    config_path: Path
    folder: Path

    @property
    def trials(self) -> Any:
        """One row per candidate of the search, as a pandas frame."""
        import pandas

        rows = [
            {
                **trial.knobs,
                "number": trial.number,
                "state": trial.state,
                "ratio": trial.ratio.estimate if trial.ratio else None,
                "reason": trial.reason,
            }
            for trial in self.record.trials
        ]
        return pandas.DataFrame(rows)


def tune(
    workload: str | None = None,
    *,
    model: str | None = None,
    trace: str | None = None,
    slo: str | None = None,
    budget: str = "60s",
    objective: str | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
) -> Study:
    """Find a configuration and prove it, or keep the default. Writes `output` (TOML) and the folder `output` with suffix `.study`.

    `budget` is a time ("60s") or a number of candidates ("40trials"). `progress(phase, seconds left, best ratio so far)` is called
    after each
    step. Ctrl-C ends the search; the final race still runs on what was found.
    """
    begin, started_at = time.monotonic(), datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    seconds, candidates = parse_budget(budget)
    path = Path(output) if output is not None else Path("tuned") / f"{workload or Path(str(model)).stem}.toml"
    folder = path.with_suffix(".study")
    path.parent.mkdir(parents=True, exist_ok=True)
    task = prepare(folder, workload, model, trace, slo, objective, seed)
    tell = progress or (lambda phase, left, best: None)
    stolen = _stolen()
    with Journal(folder / "journal.jsonl") as journal:
        _header(journal, task, seed, resume)
        trials = _search(task, journal, seed, begin, seconds, candidates, tell)
        best = _best(trials)
        winner = Config().with_knobs(best.knobs) if best is not None else None
        rounds = _final(task, winner, seed, tell, best.ratio.estimate if best is not None and best.ratio else None)
        journal.append("final", objectives={arm: [lap.objective for lap in laps] for arm, laps in rounds.items()})
    record = _record(task, trials, rounds, best, seed, command, started_at, time.monotonic() - begin, path, stolen)
    chosen = winner if record.verdict.kind == "ADOPT" and winner is not None else Config()
    _write(path, chosen, record)
    record.save(folder / "study.json")
    return Study(record, path, folder)


def parse_budget(text: str) -> tuple[float, int]:
    """(seconds, candidates) of "60s", "5m" or "40trials"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|trials)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise StudyError(f"budget {text!r} is not understood; allowed: a time such as 60s or 5m, or a number such as 40trials")
    if match[2] == "trials":
        return float("inf"), int(float(match[1]))
    return float(match[1]) * (60 if match[2] == "m" else 1), sys.maxsize


def _header(journal: Journal, task: Task, seed: int, resume: bool) -> None:
    identity = {"model_sha256": task.model_sha256, "seed": seed, "machine": host().fingerprint, "objective": task.objective}
    found = journal.of("study")
    if found and resume:
        different = [key for key, value in identity.items() if found[0].get(key) != value]
        if different:
            raise StudyError(f"{journal.path}: the study to resume differs in {', '.join(different)}; start anew without --resume")
        return
    journal.clear()
    journal.append("study", **identity)


def _search(task: Task, journal: Journal, seed: int, begin: float, seconds: float, candidates: int, tell: Progress) -> list[Trial]:
    """Candidates proposed by Optuna, each raced against the default; the journal's are taken as they are."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    knobs = space(host(), task.operators, task.batches)
    distributions = {knob.name: optuna.distributions.CategoricalDistribution(knob.values) for knob in knobs}
    sampler = optuna.create_study(direction="minimize")
    trials = [_trial(record) for record in journal.of("trial")]
    for trial in trials:
        if trial.objective is not None:
            sampler.add_trial(optuna.trial.create_trial(params=trial.knobs, distributions=distributions, value=trial.objective))
    deadline = begin + seconds * (1 - RACE_SHARE)
    with processes(task.tuning, {"default": Config()}) as standing:
        while len(trials) < candidates and time.monotonic() < deadline:
            number = len(trials)
            sampler.sampler = optuna.samplers.TPESampler(seed=_seed(seed, number), n_startup_trials=8, multivariate=False)
            asked = sampler.ask(distributions)
            try:
                record = _measure(task, standing, dict(asked.params), number, begin, seed)
            except KeyboardInterrupt:
                break
            if record["objective"] is None:
                sampler.tell(asked, state=optuna.trial.TrialState.FAIL)
            else:
                sampler.tell(asked, record["objective"])
            trials.append(_trial(journal.append("trial", **record)))
            best = _best(trials)
            tell("search", max(0.0, begin + seconds - time.monotonic()), best.ratio.estimate if best is not None and best.ratio else None)
    return trials


def _measure(task: Task, standing: Mapping[str, Any], knobs: dict[str, Any], number: int, begin: float, seed: int) -> dict[str, Any]:
    """One candidate beside the standing default process."""
    started = time.monotonic()
    record: dict[str, Any] = {
        "number": number,
        "knobs": knobs,
        "state": "failed",
        "objective": None,
        "ratio": None,
        "reason": "",
        "started_s": started - begin,
    }
    try:
        with processes(task.tuning, {"candidate": Config().with_knobs(knobs)}) as fresh:
            laps = race(task.tuning, {**standing, **fresh}, ("default", "candidate"), SEARCH_TURNS, _seed(seed, number))
        if laps["candidate"].error > task.tuning.tolerance:
            record["reason"] = f"answers differ by {laps['candidate'].error:.1e} of the largest; allowed {task.tuning.tolerance:.0e}"
        else:
            ratio = block_effect(laps["default"].objective, laps["candidate"].objective, PROCESS_SD)
            record |= {"state": "complete", "objective": ratio.estimate, "ratio": dataclasses.asdict(ratio)}
    except OpenInferError as error:
        record["reason"] = str(error)
    record["duration_s"] = time.monotonic() - started
    return record


def _trial(record: Mapping[str, Any]) -> Trial:
    ratio = Interval(**record["ratio"]) if record["ratio"] else None
    return Trial(
        record["number"],
        record["state"],
        dict(record["knobs"]),
        record["objective"],
        ratio,
        record["started_s"],
        record["duration_s"],
        record["reason"],
    )


def _best(trials: list[Trial]) -> Trial | None:
    """The candidate that looked fastest, where one looked faster than the default at all."""
    found = [trial for trial in trials if trial.ratio is not None and trial.ratio.estimate < 1]
    return min(found, key=lambda trial: trial.ratio.estimate if trial.ratio else 1.0) if found else None


def _final(task: Task, winner: Config | None, seed: int, tell: Progress, best: float | None) -> dict[str, list[Lap]]:
    """Rounds of fresh processes on held-out traffic: the default, its twin (the A/A control), and the winner."""
    arms = {"default": Config(), "twin": Config(), **({"winner": winner} if winner is not None else {})}
    rounds: dict[str, list[Lap]] = {name: [] for name in arms}
    begin = time.monotonic()
    for number in range(ROUNDS):
        course = task.held_out[number % len(task.held_out)]
        with processes(course, arms) as workers:
            for name, lap in race(course, workers, tuple(arms), RACE_TURNS, _seed(seed, number, "final")).items():
                rounds[name].append(lap)
        tell("final race", (time.monotonic() - begin) / (number + 1) * (ROUNDS - number - 1), best)
    return rounds


def _record(
    task: Task,
    trials: list[Trial],
    rounds: dict[str, list[Lap]],
    best: Trial | None,
    seed: int,
    command: str | None,
    started_at: str,
    duration_s: float,
    path: Path,
    stolen: tuple[int, int],
) -> StudyRecord:
    objectives = {name: [lap.objective for lap in laps] for name, laps in rounds.items()}
    floor = noise_floor(round_log_ratios(objectives["default"], objectives["twin"]))
    ratio = effect(objectives["default"], objectives["winner"]) if "winner" in objectives else None
    samples = {name: np.concatenate([lap.corrected for lap in laps]) for name, laps in rounds.items()}
    raw = {name: np.concatenate([lap.raw for lap in laps]) for name, laps in rounds.items()}
    judged = [name for name in ("default", "winner") if name in rounds]
    slos = [slo.check(samples[name], name, "held-out") for slo in task.slos for name in judged]
    errors = {name: max(lap.error for lap in laps) for name, laps in rounds.items()}
    tolerance = task.tuning.tolerance
    verdict = judge(ratio, floor, objective=task.objective, output_passed=max(errors.values()) <= tolerance, slos=slos)
    lateness = np.max([lap.lateness for lap in rounds["default"]], axis=0)
    trust = Trust(
        floor,
        ROUNDS,
        True,
        f"one warm-up block of {task.tuning.block} requests in every process is not counted",
        int(lateness[0]),
        int(lateness[1]),
        _steal_share(stolen),
        sum(int(lap.facts["involuntary"]) for laps in rounds.values() for lap in laps),
        max(errors.values()),
        tolerance,
        max(errors.values()) <= tolerance,
        int(sum(len(values) for values in samples.values())),
    )
    default, knobs = Config().knobs(), best.knobs if best is not None else {}
    mechanisms = {knob.name: knob.mechanism for knob in _knobs(task)}
    steps = [
        KnobStep(name, default[name], value, None, mechanisms.get(name, "")) for name, value in knobs.items() if value != default[name]
    ]
    arms = [_arm(name, rounds[name], {**default, **knobs} if name == "winner" else default) for name in judged]
    curves = [
        Curve(
            name,
            "held-out",
            list(QUANTILES),
            [int(v) for v in np.quantile(samples[name], QUANTILES)],
            [int(v) for v in np.quantile(raw[name], QUANTILES)],
            len(samples[name]),
        )
        for name in judged
    ]
    return StudyRecord(
        SCHEMA_VERSION,
        task.name,
        str(task.model),
        task.model_sha256,
        command or shlex.join(sys.argv),
        seed,
        started_at,
        duration_s,
        verdict,
        slos,
        trust,
        arms,
        steps,
        trials,
        curves,
        dict(task.accuracy),
        _environment(),
        str(path),
    )


def _arm(name: str, laps: list[Lap], knobs: dict[str, Any]) -> Arm:
    """One configuration as the final race saw it."""
    return Arm(
        name=name,
        knobs=knobs,
        objective=level([lap.objective for lap in laps]),
        p50_ns=_levels(laps, 0.5),
        p99_ns=_levels(laps, 0.99),
        p999_ns=_levels(laps, 0.999),
        peak_bytes=max(int(lap.facts["resident_bytes"]) for lap in laps),
        startup_s=float(np.median([lap.facts["startup_s"] for lap in laps])),
        max_error=max(lap.error for lap in laps),
    )


def _knobs(task: Task) -> list[Knob]:
    return space(host(), task.operators, task.batches)


def _levels(laps: list[Lap], quantile: float) -> Interval:
    return level([[float(np.quantile(lap.corrected, quantile))] for lap in laps])


def _write(path: Path, config: Config, record: StudyRecord) -> None:
    """The configuration with what speaks for it and where it comes from."""
    verdict = record.verdict
    evidence: dict[str, Any] = {
        "verdict": verdict.kind,
        "sentence": verdict.sentence,
        "objective": verdict.objective,
        "confidence": verdict.confidence,
        "noise_floor": record.trust.noise_floor,
        "samples": record.trust.samples,
        "rounds": ROUNDS,
        "slo": [f"{check.expression} {check.arm}: {check.status}" for check in record.slos],
    }
    if verdict.ratio is not None:
        evidence |= {"ratio": verdict.ratio.estimate, "ratio_low": verdict.ratio.low, "ratio_high": verdict.ratio.high}
    provenance = {
        "model_sha256": record.model_sha256,
        "machine": host().fingerprint,
        "command": record.command,
        "seed": record.seed,
        "started_at": record.started_at,
        "versions": record.environment,
    }
    config.model_copy(update={"evidence": evidence, "provenance": provenance}).save(path)


def _environment() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "numba", "llvmlite", "onnx")}
    machine = host()
    return {
        "openinfer": __version__,
        "python": platform.python_version(),
        "cpu": machine.cpu,
        "isa": machine.isa,
        "processors": str(len(machine.processors)),
        **versions,
    }


def _stolen() -> tuple[int, int]:
    """Ticks that the hypervisor has taken, and all ticks, since the machine started; (0, 0) where the kernel does not say."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return fields[7], sum(fields)
    except (OSError, ValueError, IndexError):
        return 0, 0


def _steal_share(before: tuple[int, int]) -> float:
    """Share of processor time that was stolen since `before`."""
    stolen, total = _stolen()
    return (stolen - before[0]) / max(1, total - before[1])


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
