"""The search: candidates proposed by Optuna, each in a fresh process raced against the default on the tuning trace, slow ones ended early.

The first candidates change one knob each, so that the sampler starts from every knob's own effect. Ranks; never decides.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.profiles.study_record import Interval, Trial
from openinfer.tuner.journal import Journal
from openinfer.tuner.race import ArmError, processes, race
from openinfer.tuner.space import Knob
from openinfer.tuner.statistics import block_effect
from openinfer.tuner.task import Task

from openinfer.errors import OpenInferError, StudyError
from openinfer.worker.process import Worker

log = logging.getLogger("openinfer")

FIRST_TURNS, MORE_TURNS = 2, 4
PROCESS_SD = 0.01  # what one process can be off, as a fraction; only ranks candidates, never decides
STARTING = 8  # random candidates before the sampler models anything, beside the one-knob ones

Report = Callable[[Trial | None], None]


def seed_of(*parts: object) -> int:
    """A 32-bit seed from anything with a stable text."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def search(task: Task, knobs: Sequence[Knob], journal: Journal, seed: int, more: Callable[[int], bool], report: Report) -> list[Trial]:
    """Measure candidates while `more(number of trials)`; those of the journal are taken as they are. Ctrl-C ends the search.

    Raises `StudyError` where the default itself fails, or answers outside the tolerance.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Optuna sees the place of each value, for it takes no lists.
    distributions = {knob.name: optuna.distributions.CategoricalDistribution(range(len(knob.values))) for knob in knobs}
    values = {knob.name: knob.values for knob in knobs}
    study = optuna.create_study(direction="minimize")
    defaults = {knob.name: knob.values[0] for knob in knobs}
    trials = recorded(journal)
    for trial in trials:
        if trial.objective is not None:
            params = places(defaults | trial.knobs, values)
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.objective))
    begin = time.monotonic() - max((trial.started_s + trial.duration_s for trial in trials), default=0.0)
    try:
        with processes(task.tuning, {"default": task.base}) as standing:
            _check_default(task, standing, seed)
            while more(len(trials)):
                number = len(trials)
                study.sampler = optuna.samplers.TPESampler(
                    seed=seed_of(seed, number), n_startup_trials=len(knobs) + STARTING, multivariate=True
                )
                if number < len(knobs):
                    alone = {knobs[number].name: knobs[number].values[-1]}
                    study.enqueue_trial(places(defaults | dict(knobs[number].beside) | alone, values))
                asked = study.ask(distributions)
                record = _measure(task, standing, {name: values[name][at] for name, at in asked.params.items()}, number, begin, seed)
                if record["objective"] is None:
                    study.tell(asked, state=optuna.trial.TrialState.FAIL)
                else:
                    study.tell(asked, record["objective"])
                trials.append(as_trial(journal.append("trial", **record)))
                report(best_of(trials))
    except KeyboardInterrupt:
        log.warning("the search was interrupted; the finalists are raced now; Ctrl-C again ends the race")
        return recorded(journal)
    return trials


def places(knobs: Mapping[str, Any], values: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    """Knob → where its value stands among those that may be tried."""
    return {name: list(values[name]).index(value) for name, value in knobs.items()}


def recorded(journal: Journal) -> list[Trial]:
    """The trials that the journal holds."""
    return [as_trial(record) for record in journal.of("trial")]


def _check_default(task: Task, standing: Mapping[str, Worker], seed: int) -> None:
    lap = race(task.tuning, standing, ("default",), 1, seed_of(seed, "check"))["default"]
    if lap.error > task.tuning.tolerance:
        raise StudyError(
            f"the default configuration differs from float64 by {lap.error:.1e} of the largest value; allowed {task.tuning.tolerance:.0e}: "
            "no candidate can be judged; see what openinfer run --verify says of the model"
        )


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The candidate that looked fastest, where one looked faster than the default at all."""
    ranked = ranking(trials)
    return ranked[0] if ranked else None


def ranking(trials: Sequence[Trial]) -> list[Trial]:
    """Candidates that looked faster than the default, the fastest first."""
    found = [(trial.ratio.estimate, trial.number, trial) for trial in trials if trial.state == "complete" and trial.ratio is not None]
    return [trial for ratio, _, trial in sorted(found, key=lambda item: item[:2]) if ratio < 1]


def as_trial(record: Mapping[str, Any]) -> Trial:
    """A trial from its line in the journal."""
    ratio = Interval(**record["ratio"]) if record["ratio"] else None
    values = {field.name: record[field.name] for field in dataclasses.fields(Trial) if field.name != "ratio"}
    return Trial(**values, ratio=ratio)


def _measure(task: Task, standing: Mapping[str, Worker], knobs: dict[str, Any], number: int, begin: float, seed: int) -> dict[str, Any]:
    """One candidate beside the standing default process: a few blocks, and the rest only where it may still be the faster one."""
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
        with processes(task.tuning, {"candidate": task.base.with_knobs(knobs)}) as fresh:
            both, order = {**standing, **fresh}, ("default", "candidate")
            laps = race(task.tuning, both, order, FIRST_TURNS, seed_of(seed, number))
            theirs, ours, error = laps["default"].objective, laps["candidate"].objective, laps["candidate"].error
            ratio, state, reason = block_effect(theirs, ours, PROCESS_SD), "complete", ""
            if min(np.divide(ours, theirs)) > 1 + 4 * PROCESS_SD:
                state, reason = "pruned", f"slower in each of the first {FIRST_TURNS} blocks"
            else:
                laps = race(task.tuning, both, order, MORE_TURNS, seed_of(seed, number, "more"))
                theirs, ours = theirs + laps["default"].objective, ours + laps["candidate"].objective
                ratio, error = block_effect(theirs, ours, PROCESS_SD), max(error, laps["candidate"].error)
        if error > task.tuning.tolerance:
            record["reason"] = f"answers differ by {error:.1e} of the largest; allowed {task.tuning.tolerance:.0e}"
        else:
            record |= {"state": state, "reason": reason, "objective": ratio.estimate, "ratio": dataclasses.asdict(ratio)}
    except ArmError as problem:
        if problem.arm == "default":
            raise
        record["reason"] = str(problem)
    except OpenInferError as problem:
        record["reason"] = str(problem)
    record["duration_s"] = time.monotonic() - started
    return record
