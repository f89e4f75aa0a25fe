"""The final race, with races that are written down: rounds kept and restored, failing arms left out, no rounds after a verdict."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from openinfer.tuner import final
from openinfer.tuner.final import final_race
from openinfer.tuner.journal import Journal
from openinfer.tuner.race import ArmError, Course, Lap

from openinfer.config import Config

COURSE = Course("m", "t", "o", 1e-5, 100, 10, 0.5, 0.1)
ARMS = dict.fromkeys(("default", "twin", "step 1", "winner"), Config())


def lap(value):
    samples = np.full(20, value, np.int64)
    return Lap([0, 10], [value, value], samples, samples, 0.0, np.array([1, 2]), {"drift": 1.0}, [{"waiting": 0.5}, {"waiting": 0.25}])


@pytest.fixture
def races(monkeypatch):
    started = []

    @contextlib.contextmanager
    def processes(course, arms, handicaps=None):
        for name in arms:
            if name == races_fail:
                raise ArmError(name, "does not start")
        yield dict.fromkeys(arms)

    def race(course, workers, order, turns, seed):
        started.append(tuple(order))
        return {name: lap(100.0 + len(started)) for name in order}

    races_fail = ""

    def failing(name):
        nonlocal races_fail
        races_fail = name

    monkeypatch.setattr(final, "processes", processes)
    monkeypatch.setattr(final, "race", race)
    return started, failing


def run(journal, folder):
    return final_race([COURSE], ARMS, journal, folder, 0, lambda left: None)


def test_rounds_are_restored(races, tmp_path, monkeypatch):
    started, _ = races
    with Journal(tmp_path / "j.jsonl") as journal:
        monkeypatch.setattr(final, "ROUNDS", 2)
        run(journal, tmp_path)
    monkeypatch.setattr(final, "ROUNDS", 3)
    with Journal(tmp_path / "j.jsonl") as journal:
        laps = run(journal, tmp_path)
    assert len(started) == 3
    assert [found.objective for found in laps["winner"]] == [[101.0] * 2, [102.0] * 2, [103.0] * 2]
    assert laps["twin"][0].corrected.tolist() == [101] * 20 and laps["twin"][0].firsts == [0, 10]


@pytest.mark.parametrize("failed", ["step 1", "winner"])
def test_an_arm_that_fails_is_left_out(races, tmp_path, failed):
    started, failing = races
    failing(failed)
    with Journal(tmp_path / "j.jsonl") as journal:
        laps = run(journal, tmp_path)
        assert journal.of("dropped")[0]["arm"] == failed and "does not start" in journal.of("dropped")[0]["reason"]
    assert set(laps) == set(ARMS) - {failed} and len(started) == final.ROUNDS


@pytest.mark.parametrize("failed", ["default", "twin"])
def test_without_the_default_there_is_no_race(races, tmp_path, failed):
    _, failing = races
    failing(failed)
    with Journal(tmp_path / "j.jsonl") as journal, pytest.raises(ArmError, match="does not start"):
        run(journal, tmp_path)


def test_no_rounds_after_a_verdict(races, tmp_path, monkeypatch):
    started, _ = races
    monkeypatch.setattr(final, "ROUNDS", 2)
    with Journal(tmp_path / "j.jsonl") as journal:
        run(journal, tmp_path)
        journal.append("judged", verdict="KEEP DEFAULT")
        monkeypatch.setattr(final, "ROUNDS", 8)
        laps = run(journal, tmp_path)
    assert len(started) == 2 and len(laps["default"]) == 2
