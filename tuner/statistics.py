"""The statistics of a race: effects between arms, noise between identical processes, promises about tails.

The fresh process is the unit of replication: two identical processes differ by more than their blocks do, so an interval counts
rounds (one fresh process of every arm), never blocks. Ratios are candidate ÷ default, so below 1 is a gain.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openinfer.profiles.study_record import Interval, SloStatus
from scipy import stats

Blocks = Sequence[float] | NDArray[np.float64]
CONFIDENCE = 0.99
# A stall of the host lands in single blocks of any arm. A third of the block ratios is dropped at each end before they are averaged;
# promises about tails see every sample (`quantile_bound`).
TRIM = 1 / 3
SETTLED_OVER, SETTLED_WITHIN = 3, 0.05  # replays of the same requests, and the gain of their medians that still counts as warming up


def round_log_ratios(default: Sequence[Blocks], candidate: Sequence[Blocks]) -> NDArray[np.float64]:
    """One log-ratio per round: the trimmed mean over its paired blocks. Both sides list rounds of equally many blocks."""
    if len(default) != len(candidate):
        raise ValueError(f"{len(default)} rounds of the default against {len(candidate)} of the candidate")
    pairs = zip(default, candidate, strict=True)
    return np.array([_trimmed(np.log(np.asarray(ours, float)) - np.log(np.asarray(theirs, float))) for theirs, ours in pairs])


def effect(default: Sequence[Blocks], candidate: Sequence[Blocks], confidence: float = CONFIDENCE) -> Interval:
    """Ratio candidate ÷ default with a t interval over rounds; fewer than two rounds bound nothing."""
    return ratio_interval(round_log_ratios(default, candidate), confidence)


def ratio_interval(log_ratios: NDArray[np.float64], confidence: float = CONFIDENCE) -> Interval:
    """A t interval over log-ratios of independent rounds, as a ratio."""
    count = len(log_ratios)
    if count == 0:
        return Interval(1.0, 0.0, math.inf)
    mean = float(np.mean(log_ratios))
    if count == 1:
        return Interval(math.exp(mean), 0.0, math.inf)
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * float(np.std(log_ratios, ddof=1)) / math.sqrt(count)
    return Interval(math.exp(mean), _exp(mean - half), _exp(mean + half))


def level(rounds: Sequence[Blocks], confidence: float = CONFIDENCE) -> Interval:
    """The level of one arm (in its own unit) with a t interval over its fresh processes."""
    return ratio_interval(np.array([_trimmed(np.log(np.asarray(blocks, float))) for blocks in rounds]), confidence)


def block_effect(default: Blocks, candidate: Blocks, process_sd: float, confidence: float = 0.9) -> Interval:
    """The search's cheap estimate from one process a side: block noise, and `process_sd` (log scale, one process) for what a
    single process cannot show. Ranks and prunes; never decides."""
    ratios = np.log(np.asarray(candidate, float)) - np.log(np.asarray(default, float))
    if len(ratios) < 2:
        return Interval(float(np.exp(ratios.mean())) if len(ratios) else 1.0, 0.0, math.inf)
    center = _trimmed(ratios)
    error = math.sqrt(float(np.var(ratios, ddof=1)) / len(ratios) + 2 * process_sd**2)
    half = float(stats.t.ppf((1 + confidence) / 2, len(ratios) - 1)) * error
    return Interval(math.exp(center), _exp(center - half), _exp(center + half))


def is_settled(medians: Sequence[float]) -> bool:
    """Whether a process has warmed up: the last replays of the same work are no faster than the best one before them.

    Noise of the host only adds time, so minima tell warming up (each replay faster than any before) from it.
    """
    before, last = medians[:-SETTLED_OVER], medians[-SETTLED_OVER:]
    return bool(before) and min(last) >= (1 - SETTLED_WITHIN) * min(before)


def noise_floor(control: NDArray[np.float64], confidence: float = 0.95) -> float:
    """The gain that identical arms could show, as a fraction below 1: the far end of the A/A control's interval, whichever arm is named
    first.
    """
    interval = ratio_interval(control, confidence)
    return 1 - min(interval.low, 1 / interval.high)


@dataclasses.dataclass(frozen=True)
class QuantileBound:
    """A promise "the q-quantile is under `limit`", judged by the exact binomial bound."""

    status: SloStatus
    samples: int
    violations: int
    observed: float
    upper: float | None


def samples_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """Samples without a violation that prove a promise about the q-quantile: 459 for p99, 4,603 for p99.9."""
    return math.ceil(math.log(1 - confidence) / math.log(q))


def quantile_bound(
    samples: Any, q: float, limit: float, confidence: float = CONFIDENCE, inclusive: bool = False, distinct: int | None = None
) -> QuantileBound:
    """Judge "q-quantile < limit" (`inclusive`: <=). A sample equal to the limit violates "<" and keeps "<=".

    Met where fewer violations than 1-q are certain at `confidence`, not met where more are, undecided between. `upper` is the
    distribution-free upper bound of the quantile, an order statistic; None where the samples are too few for one. Replays of the same
    requests say nothing about others: with fewer than `samples_needed` `distinct` ones a promise is never met.
    """
    values = np.sort(np.asarray(samples))
    count = len(values)
    if count == 0:
        return QuantileBound("undecided", 0, 0, math.nan, None)
    violations = count - int(np.searchsorted(values, limit, side="right" if inclusive else "left"))
    allowed = 1 - q
    status: SloStatus = "undecided"
    if stats.binom.cdf(violations, count, allowed) <= 1 - confidence:
        status = "met"
    elif stats.binom.sf(violations - 1, count, allowed) <= 1 - confidence:
        status = "not met"
    if status == "met" and distinct is not None and distinct < samples_needed(q, confidence):
        status = "undecided"
    rank = int(stats.binom.ppf(confidence, count, q)) + 1
    observed = float(values[min(count - 1, math.ceil(q * count) - 1)])
    return QuantileBound(status, count, violations, observed, float(values[rank - 1]) if rank <= count else None)


def _trimmed(values: NDArray[np.float64]) -> float:
    ordered = np.sort(values)
    cut = int(len(ordered) * TRIM)
    return float(np.mean(ordered[cut : len(ordered) - cut]))


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
