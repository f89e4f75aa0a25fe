"""The final race: rounds of fresh processes on held-out traffic. Each finished round is kept, so that a study killed here goes on here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.tuner.journal import Journal
from openinfer.tuner.race import ArmError, Course, Lap, processes, race
from openinfer.tuner.search import seed_of
from openinfer.workloads.trace import npz_bytes

from openinfer.config import Config, write_atomically

ROUNDS, TURNS = 8, 6
LEAST_ROUNDS = 2  # below this, nothing can be said about processes


def final_race(
    courses: Sequence[Course],
    arms: Mapping[str, Config],
    journal: Journal,
    folder: Path,
    seed: int,
    tell: Callable[[float], None],
    handicaps: Mapping[str, float] | None = None,
) -> dict[str, list[Lap]]:
    """`ROUNDS` laps per arm that runs; `tell(seconds left)` after each round. Ctrl-C ends it with the rounds that are complete.

    An arm that fails is left out from then on, with its reason in the journal; `ArmError` where it is the default. Rounds are not added
    to a race that has been judged: looking at a result and going on would make its interval too narrow.
    """
    done = [_restore(record, folder) for record in journal.of("round")]
    dropped = {record["arm"] for record in journal.of("dropped")}
    begin, fresh = time.monotonic(), 0
    try:
        while len(done) < ROUNDS and not journal.of("judged"):
            number = len(done)
            course = courses[number % len(courses)]
            running = {name: config for name, config in arms.items() if name not in dropped}
            try:
                with processes(course, running, handicaps) as workers:
                    laps = race(course, workers, tuple(running), TURNS, seed_of(seed, number, "final"))
            except ArmError as error:
                if error.arm in ("default", "twin"):
                    raise
                dropped.add(error.arm)
                journal.append("dropped", arm=error.arm, reason=str(error))
                continue
            _keep(laps, number, journal, folder)
            done.append(laps)
            fresh += 1
            tell((time.monotonic() - begin) / fresh * (ROUNDS - len(done)))
    except KeyboardInterrupt:
        if len(done) < LEAST_ROUNDS:
            raise
    return {name: [laps[name] for laps in done] for name in arms if name not in dropped}


def _keep(laps: Mapping[str, Lap], number: int, journal: Journal, folder: Path) -> None:
    """Samples to their own file first: a round counts once the journal names it."""
    name = f"round-{number}.npz"
    samples = {f"{arm}/{kind}": getattr(lap, kind) for arm, lap in laps.items() for kind in ("corrected", "raw")}
    write_atomically(folder / name, npz_bytes(samples))
    told = {
        arm: {
            "firsts": lap.firsts,
            "objective": lap.objective,
            "error": lap.error,
            "lateness": lap.lateness.tolist(),
            "facts": lap.facts,
            "seen": lap.seen,
        }
        for arm, lap in laps.items()
    }
    journal.append("round", number=number, samples=name, arms=told)


def _restore(record: Mapping[str, Any], folder: Path) -> dict[str, Lap]:
    with np.load(folder / record["samples"], allow_pickle=False) as file:
        return {
            arm: Lap(
                told["firsts"],
                told["objective"],
                file[f"{arm}/corrected"],
                file[f"{arm}/raw"],
                told["error"],
                np.asarray(told["lateness"]),
                told["facts"],
                told["seen"],
            )
            for arm, told in record["arms"].items()
        }
