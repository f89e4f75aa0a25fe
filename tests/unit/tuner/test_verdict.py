"""The verdict adopts what is faster, and hardly ever what is not."""

from __future__ import annotations

import numpy as np
import pytest
from openinfer.profiles.study_record import Interval, SloCheck
from openinfer.tuner.statistics import effect, noise_floor, round_log_ratios
from openinfer.tuner.verdict import judge
from race_noise import simulated_rounds

SEED = int(np.random.SeedSequence().generate_state(1)[0])
ROUNDS = 5


def _study(rng: np.random.Generator, ratio: float) -> tuple[str, Interval]:
    default, twin, winner = (simulated_rounds(rng, ROUNDS, level) for level in (1.0, 1.0, ratio))
    interval = effect(default, winner)
    return judge(interval, noise_floor(round_log_ratios(default, twin)), objective="p50").kind, interval


def test_identical_arms_are_not_adopted() -> None:
    print(f"{SEED=}")
    rng = np.random.default_rng(SEED)
    kinds = [_study(rng, 1.0)[0] for _ in range(500)]
    assert kinds.count("ADOPT") <= 5


def test_planted_gains_are_found_and_covered() -> None:
    print(f"{SEED=}")
    rng = np.random.default_rng(SEED)
    studies = [(_study(rng, ratio), ratio) for ratio in rng.uniform(0.7, 0.9, 200)]
    found = sum(kind == "ADOPT" for (kind, _), _ in studies)
    covered = sum(interval.low <= ratio <= interval.high for (_, interval), ratio in studies)
    assert found >= 180
    assert covered >= 191


def test_planted_losses_are_never_adopted() -> None:
    print(f"{SEED=}")
    rng = np.random.default_rng(SEED)
    assert all(_study(rng, 1.2)[0] != "ADOPT" for _ in range(200))


def _check(arm: str, status: str) -> SloCheck:
    return SloCheck("p99<1ms", arm, "burst", 0.99, 10**6, status, 500, 0, 10, 20, 500)  # type: ignore[arg-type]  # the test's own literals


@pytest.mark.parametrize(
    ("ratio", "floor", "kind"),
    [
        (Interval(0.9, 0.88, 0.92), 0.02, "ADOPT"),
        (Interval(0.97, 0.95, 0.99), 0.05, "KEEP DEFAULT"),
        (Interval(1.1, 1.05, 1.15), 0.02, "KEEP DEFAULT"),
        (Interval(1.0, 0.99, 1.01), 0.02, "KEEP DEFAULT"),
        (Interval(0.95, 0.8, 1.1), 0.02, "INCONCLUSIVE"),
        (Interval(0.9, 0.0, float("inf")), 0.02, "INCONCLUSIVE"),
        (None, 0.02, "KEEP DEFAULT"),
    ],
)
def test_rules(ratio: Interval | None, floor: float, kind: str) -> None:
    verdict = judge(ratio, floor, objective="p99")
    assert verdict.kind == kind
    assert verdict.sentence.startswith(kind)


def test_wrong_answers_and_broken_promises_keep_the_default() -> None:
    ratio = Interval(0.5, 0.4, 0.6)
    assert judge(ratio, 0.01, objective="p50", output_passed=False).kind == "KEEP DEFAULT"
    newly = [_check("default", "met"), _check("winner", "not met")]
    assert judge(ratio, 0.01, objective="p50", slos=newly).kind == "KEEP DEFAULT"
    both = [_check("default", "not met"), _check("winner", "not met")]
    assert judge(ratio, 0.01, objective="p50", slos=both).kind == "ADOPT"
