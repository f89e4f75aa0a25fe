"""From the best candidate of the search to what enters the final race: only the knobs that matter, in the order of their effect.

Raced on the tuning trace, in fresh processes:
1. the candidate beside itself with one knob put back, for each knob: what each one is worth;
2. the default with the most valuable knobs added one by one: where adding stops to help, the rest is dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from openinfer.profiles.study_record import Trial
from openinfer.tuner.race import processes, race
from openinfer.tuner.search import PROCESS_SD, ranking, seed_of
from openinfer.tuner.statistics import block_effect
from openinfer.tuner.task import Task

from openinfer.config import Config
from openinfer.errors import StudyError

TURNS = 8
MOST_STEPS = 4
WORTH = 0.02  # a knob that gains less than this of the objective is left at its default
SURE = 0.5  # and so is one whose gain may as well be noise: the confidence of the interval that it has to leave

NO_SANDBOX = "no sandbox"  # the arm that shows what a sandbox costs

Knobs = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Finalists:
    """`path` holds the knobs of the winner in the order in which they are added to the default; empty where nothing looked faster.
    Steps are raced for the first `MOST_STEPS` of them. `runner_up` is the next candidate that differs from the winner in one of them.
    """

    path: Knobs
    runner_up: Knobs | None

    def arms(self, base: Config) -> dict[str, Config]:
        """Arm name → configuration: the default, which is `base`, its twin (the A/A control), the steps of the path, the last of them the
        winner. Where the base has a sandbox, also the configuration that may be written without one.
        """
        arms = {"default": base, "twin": base}
        names = list(self.path)
        for length in range(1, min(len(names), MOST_STEPS + 1)):
            arms[step_name(length)] = base.with_knobs({name: self.path[name] for name in names[:length]})
        if names:
            arms["winner"] = base.with_knobs(self.path)
        if self.runner_up is not None:
            arms["runner-up"] = base.with_knobs(self.runner_up)
        if base.sandbox.mode != "off":
            arms[NO_SANDBOX] = base.with_knobs({**self.path, "sandbox.mode": "off"})
        return arms


def step_name(length: int) -> str:
    """The arm with the first `length` knobs of the path."""
    return f"step {length}"


def choose(task: Task, trials: Sequence[Trial], seed: int) -> Finalists:
    """The finalists. Where fewer knobs are not as fast, or do not run, the candidate is taken as it was found."""
    ranked = ranking(trials)
    if not ranked:
        return Finalists({}, None)
    found = changed(ranked[0].knobs, task.base)
    if not found:  # the default itself under another name
        return Finalists({}, None)
    try:
        path = _shortest(task, _by_worth(task, found, seed), seed)
    except StudyError:  # a combination that the search had not tried does not run: the candidate as it was found
        path = found
    return Finalists(path, _runner_up(ranked, path, task.base))


def changed(knobs: Mapping[str, Any], base: Config) -> Knobs:
    """The knobs that differ from the default, `base`."""
    defaults = base.knobs()
    return {name: value for name, value in knobs.items() if value != defaults[name]}


def _by_worth(task: Task, found: Knobs, seed: int) -> Knobs:
    if len(found) == 1:
        return found
    arms = {"all": task.base.with_knobs(found)}
    arms |= {name: task.base.with_knobs({other: value for other, value in found.items() if other != name}) for name in found}
    with processes(task.tuning, arms) as workers:
        laps = race(task.tuning, workers, tuple(arms), TURNS, seed_of(seed, "worth"))
    worth = {name: block_effect(laps["all"].objective, laps[name].objective, PROCESS_SD).estimate for name in found}
    return {name: found[name] for name in sorted(found, key=lambda name: -worth[name])}


def _shortest(task: Task, ordered: Knobs, seed: int) -> Knobs:
    """The shortest beginning of `ordered` that is as fast as the fastest one, as far as this race can tell; the whole where none of at most
    `MOST_STEPS` knobs is.
    """
    names = list(ordered)
    if len(names) == 1:
        return ordered
    lengths = [*range(1, min(len(names), MOST_STEPS + 1)), len(names)]
    arms = {str(n): task.base.with_knobs({name: ordered[name] for name in names[:n]}) for n in lengths}
    with processes(task.tuning, {"default": task.base, **arms}) as workers:
        laps = race(task.tuning, workers, ("default", *arms), TURNS, seed_of(seed, "path"))
    ratio = {n: block_effect(laps["default"].objective, laps[str(n)].objective, PROCESS_SD, SURE) for n in lengths}
    best = min(ratio.values(), key=lambda found: found.estimate)
    enough = max(best.estimate * (1 + WORTH), best.high)
    length = next(n for n in lengths if ratio[n].estimate <= enough)
    return {name: ordered[name] for name in names[:length]}


def _runner_up(ranked: Sequence[Trial], path: Knobs, base: Config) -> Knobs | None:
    """The best other candidate that sets one of the winner's knobs otherwise."""
    defaults = base.knobs()
    for trial in ranked[1:]:
        if any(trial.knobs.get(name, defaults[name]) != value for name, value in path.items()):
            return changed(trial.knobs, base)
    return None
