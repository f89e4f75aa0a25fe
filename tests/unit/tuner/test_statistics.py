"""Effects cover the truth with realistic noise; tail promises follow the exact binomial bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
from openinfer.tuner.statistics import (
    block_effect,
    effect,
    is_settled,
    level,
    noise_floor,
    quantile_bound,
    round_log_ratios,
    samples_needed,
)
from race_noise import simulated_rounds

SEED = int(np.random.SeedSequence().generate_state(1)[0])


@pytest.mark.parametrize("rounds", [5, 8])
def test_intervals_cover_the_truth_with_process_offsets(rounds: int) -> None:
    print(f"{SEED=}")
    rng = np.random.default_rng(SEED)
    missed = 0
    for _ in range(600):
        low_ratio = rng.uniform(0.7, 1.3)
        default, candidate = simulated_rounds(rng, rounds), simulated_rounds(rng, rounds, low_ratio)
        interval = effect(default, candidate)
        missed += not interval.low <= low_ratio <= interval.high
    # A 99% interval misses 6 of 600; 18 would be a chance of 1 in 20,000.
    assert missed < 18


def test_counting_blocks_instead_of_processes_would_not_cover() -> None:
    """The reason for rounds: an interval over blocks of one process pair misses the truth far more often than it says."""
    print(f"{SEED=}")
    rng = np.random.default_rng(SEED)
    missed = 0
    for _ in range(200):
        default, candidate = (simulated_rounds(rng, 1, blocks=64, block_sd=0.002) for _ in range(2))
        interval = block_effect(default[0], candidate[0], process_sd=0.0, confidence=0.99)
        missed += not interval.low <= 1 <= interval.high
    assert missed > 10  # 2 are expected of an interval that keeps its word


def test_process_spread_widens_the_search_estimate() -> None:
    blocks = [1.0, 1.01, 0.99, 1.0]
    narrow, wide = block_effect(blocks, blocks, 0.0), block_effect(blocks, blocks, 0.05)
    assert wide.low < narrow.low <= 1 <= narrow.high < wide.high


def test_a_stalled_block_does_not_move_the_effect() -> None:
    default = [[1.0] * 8] * 5
    candidate = [[0.9] * 8 for _ in range(5)]
    candidate[2][3] = 500.0
    assert effect(default, candidate).estimate == pytest.approx(0.9)


def test_too_few_rounds_bound_nothing() -> None:
    interval = effect([[1.0, 1.0]], [[0.5, 0.5]])
    assert (interval.low, interval.high) == (0.0, math.inf)
    assert interval.estimate == pytest.approx(0.5)
    assert effect([], []).high == math.inf


def test_rounds_must_pair() -> None:
    with pytest.raises(ValueError, match="1 rounds"):
        round_log_ratios([[1.0]], [[1.0], [1.0]])


def test_the_level_of_an_arm_is_in_its_own_unit() -> None:
    assert level([[100.0, 100.0], [110.0, 110.0], [90.0, 90.0]]).estimate == pytest.approx(99.666, abs=0.01)


def test_warming_up_is_told_from_noise() -> None:
    assert not is_settled([10, 10, 10])
    assert not is_settled([100, 80, 60, 50])
    assert is_settled([100, 50, 55, 60, 51])
    assert not is_settled([50, 50, 50, 40])


def test_noise_floor_is_the_far_end_of_the_control() -> None:
    assert noise_floor(np.zeros(6)) == 0
    control = np.array([0.3, -0.1, 0.5, 0.2])
    assert 0 < noise_floor(control) < 1
    assert noise_floor(control) == pytest.approx(noise_floor(-control))  # whichever arm is called the twin


def test_replays_of_few_requests_keep_no_promise() -> None:
    assert quantile_bound(np.zeros(5000), 0.99, 1, distinct=459).status == "met"
    assert quantile_bound(np.zeros(5000), 0.99, 1, distinct=458).status == "undecided"
    assert quantile_bound(np.full(5000, 2), 0.99, 1, distinct=1).status == "not met"


@pytest.mark.parametrize(("q", "needed"), [(0.99, 459), (0.999, 4603), (0.5, 7)])
def test_samples_needed_for_a_clean_proof(q: float, needed: int) -> None:
    assert samples_needed(q) == needed
    assert quantile_bound(np.zeros(needed), q, 1).status == "met"
    assert quantile_bound(np.zeros(needed - 1), q, 1).status == "undecided"


def test_violations_decide() -> None:
    samples = np.zeros(10_000)
    samples[:50] = 10
    assert quantile_bound(samples, 0.99, 5).status == "met"
    samples[:100] = 10
    assert quantile_bound(samples, 0.99, 5).status == "undecided"
    samples[:150] = 10
    bound = quantile_bound(samples, 0.99, 5)
    assert (bound.status, bound.violations, bound.observed) == ("not met", 150, 10)


def test_a_sample_at_the_limit_breaks_less_than_and_keeps_at_most() -> None:
    samples = np.full(1000, 5)
    assert quantile_bound(samples, 0.99, 5).status == "not met"
    assert quantile_bound(samples, 0.99, 5, inclusive=True).status == "met"


def test_the_upper_bound_is_an_order_statistic() -> None:
    assert quantile_bound(np.arange(458), 0.99, 1e9).upper is None
    assert quantile_bound(np.arange(459), 0.99, 1e9).upper == 458
    assert quantile_bound([], 0.99, 1).status == "undecided"


def test_the_upper_bound_covers_the_quantile() -> None:
    print(f"{SEED=}")
    rng = np.random.default_rng(SEED)
    truth = math.log(100)
    bounds = [quantile_bound(rng.exponential(size=1000), 0.99, 1.0).upper for _ in range(1000)]
    assert sum(bound is not None and bound < truth for bound in bounds) < 30
