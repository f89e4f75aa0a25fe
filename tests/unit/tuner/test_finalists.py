"""Finalists: which candidates rank, which arms they make, who is the runner-up."""

from __future__ import annotations

import types
from typing import Any

from openinfer.profiles.study_record import Interval, Trial
from openinfer.tuner import finalists
from openinfer.tuner.finalists import Finalists, changed
from openinfer.tuner.search import ranking

from openinfer.config import Config


def trial(number: int, ratio: float | None, knobs: dict, state: str = "complete") -> Trial:
    interval = None if ratio is None else Interval(ratio, ratio - 0.1, ratio + 0.1)
    return Trial(number, state, knobs, ratio, interval, 0.0, 1.0, "")  # type: ignore[arg-type]  # the test's own literals


def test_only_complete_candidates_that_look_faster_rank() -> None:
    trials = [
        trial(0, 0.9, {}),
        trial(1, 0.5, {}, "pruned"),
        trial(2, 1.1, {}),
        trial(3, 0.8, {}),
        trial(4, None, {}, "failed"),
        trial(5, 0.8, {}),
    ]
    assert [found.number for found in ranking(trials)] == [3, 5, 0]


def test_arms_walk_from_the_default_to_the_winner() -> None:
    arms = Finalists({"engine.threads": 2, "engine.gc": "off"}, {"engine.wait": "spin"}).arms(Config())
    assert list(arms) == ["default", "twin", "step 1", "winner", "runner-up"]
    assert arms["default"] == arms["twin"] == Config()
    assert changed(arms["step 1"].knobs(), Config()) == {"engine.threads": 2}
    assert changed(arms["winner"].knobs(), Config()) == {"engine.threads": 2, "engine.gc": "off"}
    assert list(Finalists({}, None).arms(Config())) == ["default", "twin"]


def test_a_sandboxed_base_races_what_may_be_written_without_its_sandbox() -> None:
    base = Config.parse({"sandbox": {"mode": "process", "spin_us": 50}})
    for path in ({}, {"sandbox.spin_us": 1000}):
        arms = Finalists(path, None).arms(base)
        boxed = arms["winner" if path else "default"]
        assert changed(arms[finalists.NO_SANDBOX].knobs(), boxed) == {"sandbox.mode": "off"}
    assert finalists.NO_SANDBOX not in Finalists({}, None).arms(Config())


def test_nothing_faster_leaves_the_default_alone() -> None:
    task: Any = types.SimpleNamespace(base=Config())
    assert finalists.choose(task, [trial(0, 1.2, {"engine.threads": 2})], 0) == Finalists({}, None)
    assert finalists.choose(task, [trial(0, 0.9, {"engine.threads": 1})], 0) == Finalists({}, None)


def test_the_runner_up_differs_in_a_knob_that_matters() -> None:
    ranked = [
        trial(0, 0.5, {"engine.threads": 2, "engine.gc": "off"}),
        trial(1, 0.6, {"engine.threads": 2, "engine.gc": "freeze"}),
        trial(2, 0.7, {"engine.threads": 1, "engine.gc": "off"}),
    ]
    assert finalists._runner_up(ranked, {"engine.threads": 2}, Config()) == {"engine.gc": "off"}
    assert finalists._runner_up(ranked[:2], {"engine.threads": 2}, Config()) is None


def test_arms_and_changes_are_counted_from_the_base() -> None:
    base = Config().with_knobs({"engine.threads": 2, "engine.float64_layers": ["centred"]})
    base = base.model_copy(update={"evidence": {"calibration": {"model_sha256": "0"}}})
    arms = Finalists({"engine.precision": "float32"}, {"engine.threads": 1}).arms(base)
    assert arms["default"] is base
    assert arms["winner"].engine.float64_layers == ("centred",) and arms["winner"].engine.threads == 2
    assert arms["winner"].evidence == base.evidence
    assert changed(arms["runner-up"].knobs(), base) == {"engine.threads": 1}
    ranked = [trial(0, 0.5, {}), trial(1, 0.6, {"engine.threads": 1})]
    assert finalists._runner_up(ranked, {"engine.threads": 4}, base) == {"engine.threads": 1}
