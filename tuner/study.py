"""A study: search on the tuning trace, race the finalists on held-out traffic in fresh processes, say the verdict, write the
configuration. Every step that is complete is in the journal; `--resume` goes on behind it.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openinfer.profiles.steal import stolen_share, stolen_ticks
from openinfer.profiles.study_record import StudyRecord, Trial
from openinfer.tuner.assemble import Circumstances, assemble
from openinfer.tuner.final import final_race
from openinfer.tuner.finalists import Finalists, changed, choose
from openinfer.tuner.journal import Journal, read_journal
from openinfer.tuner.pace import Pace
from openinfer.tuner.plan import Plan, prepare
from openinfer.tuner.search import best_of, recorded, search
from openinfer.tuner.task import Task, write

from openinfer.config import Config
from openinfer.errors import StudyError
from openinfer.machine import host
from openinfer.version import __version__

JOURNAL_SCHEMA = 2
SEARCH_SHARE = 0.5  # of a time budget; choosing the finalists and the final race take about the rest

Progress = Callable[[str, float, float | None], None]


@dataclasses.dataclass(frozen=True)
class Study:
    """A finished study and where it was written."""

    record: StudyRecord
    config_path: Path
    folder: Path

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """The finished study in a folder NAME.study that `tune` wrote; `StudyError` where there is none."""
        record = StudyRecord.load(Path(folder) / "study.json")
        return cls(record, Path(record.config_path), Path(folder))

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
                "duration_s": trial.duration_s,
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
    budget: str = "90s",
    objective: str | None = None,
    seed: int = 0,
    output: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
) -> Study:
    """Find a configuration and prove it, or keep the default. Writes `output` (TOML) and the folder `output` with suffix `.study`.

    `budget` is a time ("60s") or a number of candidates ("40trials"). `progress(phase, seconds left, best ratio so far)` is called
    after each step. Ctrl-C ends the search, and the finalists are still raced; a second one ends the race with its complete rounds.
    Raises `StudyError`, `ModelError`, `WorkloadError` for what cannot be tuned.
    """
    begin = time.monotonic()
    seconds, candidates = parse_budget(budget)
    path = Path(output) if output is not None else Path("tuned") / f"{workload or Path(str(model)).stem}.toml"
    folder = path.with_suffix(".study")
    _check_writable(path)
    tell = progress or (lambda phase, left, best: None)
    header = _header(folder) if resume else None
    plan = prepare(workload, model, trace, slo, objective, seed, _pace(header, objective))
    stolen = stolen_ticks()
    with Journal(folder / "journal.jsonl") as journal:
        header = _open(journal, plan, seed, resume, command or shlex.join(sys.argv))
        task = write(plan, folder)
        best: list[float | None] = [None]
        start = time.monotonic()

        def left() -> float:
            return max(0.0, start + seconds - time.monotonic())

        def report(found: Trial | None) -> None:
            best[0] = found.ratio.estimate if found is not None and found.ratio else None
            tell("search", left(), best[0])

        trials = recorded(journal)
        if not journal.of("finalists"):
            deadline = start + seconds * SEARCH_SHARE
            trials = search(task, plan.knobs, journal, seed, lambda n: n < candidates and time.monotonic() < deadline, report)
            tell("finalists", left(), best[0])
        finalists = _finalists(task, trials, journal, seed)
        arms = finalists.arms(task.base)
        laps = final_race(task.held_out, arms, journal, folder, seed, lambda rest: tell("final race", rest, best[0]))
        journal.append("session", duration_s=time.monotonic() - begin, steal_share=stolen_share(stolen))
        around = _circumstances(header, journal, path, trials)
        record = assemble(task, trials, finalists, laps, plan.knobs, around)
        _write(path, arms["winner"] if record.verdict.kind == "ADOPT" else task.base, record)
        record.save(folder / "study.json")
        if not journal.of("judged"):
            journal.append("judged", verdict=record.verdict.kind)
    return Study(record, path, folder)


def parse_budget(text: str) -> tuple[float, int]:
    """(seconds, candidates) of "60s", "5m" or "40trials"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|trials)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise StudyError(f"budget {text!r} is not understood; allowed: a time such as 60s or 5m, or a number such as 40trials")
    if match[2] == "trials":
        if "." in match[1]:
            raise StudyError(f"budget {text!r} is not a whole number of candidates; allowed: such as 40trials")
        return float("inf"), int(match[1])
    return float(match[1]) * (60 if match[2] == "m" else 1), sys.maxsize


def _check_writable(path: Path) -> None:
    """Refuse now what could not be written after the study."""
    if path.suffix != ".toml" or path.is_dir():
        raise StudyError(f"output {str(path)!r} is not the path of a .toml file; give one such as tuned/mine.toml")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise StudyError(f"output {str(path)!r} cannot be written: {str(nearest)!r} is no writable folder; choose another --output")


def _header(folder: Path) -> dict[str, Any] | None:
    """The first record of the journal to resume; `None` where there is none."""
    path = folder / "journal.jsonl"
    records = read_journal(path) if path.exists() else []
    return dict(records[0]) if records and records[0]["kind"] == "study" else None


def _pace(header: Mapping[str, Any] | None, objective: str | None) -> Pace | None:
    """The pace of the study to resume: timed anew, blocks and objective could differ by noise."""
    if header is None or header.get("schema") != JOURNAL_SCHEMA:
        return None
    pace = Pace(**header["pace"])
    if objective is not None and objective != pace.objective:
        raise StudyError(f"the study to resume compares {pace.objective}, found --objective {objective}; start anew without --resume")
    return pace


def _open(journal: Journal, plan: Plan, seed: int, resume: bool, command: str) -> dict[str, Any]:
    """The header of the journal: the one that is resumed, or a new one in an emptied journal."""
    identity = {"schema": JOURNAL_SCHEMA, "version": __version__, "seed": seed, **plan.identity()}
    found = journal.of("study")
    if found and resume:
        different = [key for key, value in identity.items() if found[0].get(key) != value]
        if different:
            raise StudyError(f"{journal.path}: the study to resume differs in {', '.join(different)}; start anew without --resume")
        return found[0]
    model = str(plan.model.resolve())
    if found and found[0].get("model", model) != model:
        raise StudyError(f"{journal.path} is a study of {found[0]['model']}, found {model}; choose another --output or delete the folder")
    journal.clear()
    for left_over in journal.path.parent.glob("study.json"):
        left_over.unlink()
    started_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    pace = dataclasses.asdict(plan.pace)
    return journal.append("study", **identity, model=model, pace=pace, command=command, started_at=started_at)


def _circumstances(header: Mapping[str, Any], journal: Journal, path: Path, trials: Sequence[Trial]) -> Circumstances:
    sessions = journal.of("session")
    duration_s = sum(session["duration_s"] for session in sessions)
    stolen = sum(session["steal_share"] * session["duration_s"] for session in sessions)
    dropped = [record["reason"] for record in journal.of("dropped") if record["arm"] == "winner"]
    return Circumstances(
        command=header["command"],
        seed=header["seed"],
        started_at=header["started_at"],
        duration_s=duration_s,
        steal_share=stolen / duration_s,
        config_path=str(path),
        nothing=_why_nothing(trials, dropped),
    )


def _why_nothing(trials: Sequence[Trial], dropped: Sequence[str]) -> str:
    """Why there is no winner, where there is none."""
    if dropped:
        return f"the winner of the search failed in the final race: {dropped[0]}"
    if not trials:
        return "the budget ended before a candidate was measured"
    failed = [trial for trial in trials if trial.state == "failed"]
    if len(failed) == len(trials):
        return f"all {len(trials)} candidates failed; the first: {failed[0].reason}"
    return f"none of {len(trials) - len(failed)} candidates looked faster than the default"


def _finalists(task: Task, trials: Sequence[Trial], journal: Journal, seed: int) -> Finalists:
    """The journal's finalists, or a choice that the journal then keeps. Ctrl-C takes the best candidate as it was found."""
    known = journal.of("finalists")
    if known:
        return Finalists(known[0]["path"], known[0]["runner_up"])
    try:
        chosen = choose(task, trials, seed)
    except KeyboardInterrupt:
        best = best_of(trials)
        chosen = Finalists(changed(best.knobs, task.base) if best is not None else {}, None)
    journal.append("finalists", path=chosen.path, runner_up=chosen.runner_up)
    return chosen


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
        "rounds": record.trust.rounds,
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
    config.model_copy(update={"evidence": {**config.evidence, **evidence}, "provenance": provenance}).save(path)
