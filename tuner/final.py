"""The final race: rounds of fresh processes on held-out traffic. Each finished round is kept, so that a study killed here goes on here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.tuner.journal import Journal
from openinfer.tuner.race import Course, Lap, processes, race
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
    """`ROUNDS` laps per arm; `tell(seconds left)` after each round. Ctrl-C ends it with the rounds that are complete."""
    done = [_restore(record, folder) for record in journal.of("round")]
    begin, fresh = time.monotonic(), 0
    try:
        for number in range(len(done), ROUNDS):
            course = courses[number % len(courses)]
            with processes(course, arms, handicaps) as workers:
                laps = race(course, workers, tuple(arms), TURNS, seed_of(seed, number, "final"))
            _keep(laps, number, journal, folder)
            done.append(laps)
            fresh += 1
            tell((time.monotonic() - begin) / fresh * (ROUNDS - number - 1))
    except KeyboardInterrupt:
        if len(done) < LEAST_ROUNDS:
            raise
    return {name: [laps[name] for laps in done] for name in arms}


def _keep(laps: Mapping[str, Lap], number: int, journal: Journal, folder: Path) -> None:
    """Samples to their own file first: a round counts once the journal names it."""
    name = f"round-{number}.npz"
    samples = {f"{arm}/{kind}": getattr(lap, kind) for arm, lap in laps.items() for kind in ("corrected", "raw")}
    write_atomically(folder / name, npz_bytes(samples))
    told = {
        arm: {"objective": lap.objective, "error": lap.error, "lateness": lap.lateness.tolist(), "facts": lap.facts}
        for arm, lap in laps.items()
    }
    journal.append("round", number=number, samples=name, arms=told)


def _restore(record: Mapping[str, Any], folder: Path) -> dict[str, Lap]:
    with np.load(folder / record["samples"], allow_pickle=False) as file:
        return {
            arm: Lap(
                told["objective"],
                file[f"{arm}/corrected"],
                file[f"{arm}/raw"],
                told["error"],
                np.asarray(told["lateness"]),
                told["facts"],
            )
            for arm, told in record["arms"].items()
        }
