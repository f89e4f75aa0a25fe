"""Blocks that fit their time and their percentile; idle gaps cut; traffic that the oracle can afford."""

from __future__ import annotations

import numpy as np
import pytest
from openinfer.tuner.pace import GAP_S, SCHEDULED_BLOCK, fit, without_long_gaps
from openinfer.workloads.trace import Trace

from openinfer.errors import StudyError


def trace(requests: int, gap_s: float | None) -> Trace:
    inputs = {"x": np.zeros((requests, 2), np.float32)}
    return Trace(inputs, None if gap_s is None else np.arange(requests) * gap_s)


@pytest.mark.parametrize(
    ("requests", "gap_s", "call_s", "objective", "block", "compared"),
    [
        (10_000, None, 1e-6, None, 10_000, "p99"),
        (10_000, None, 1e-3, None, 250, "p99"),
        (10_000, None, 2e-3, None, 125, "p50"),
        (10_000, None, 1.0, None, 5, "p50"),
        (3, None, 1.0, None, 3, "p50"),
        (10_000, None, 1e-2, "p99", 200, "p99"),
        (10_000, 1e-4, 1e-6, None, SCHEDULED_BLOCK, "p99"),
        (10_000, 1e-4, 1e-6, "p99.9", 2000, "p99.9"),
        (10_000, 5e-3, 1e-6, "p99", 200, "p99"),
        (10_000, 5e-3, 1e-6, None, 50, "p50"),
    ],
)
def test_blocks(requests, gap_s, call_s, objective, block, compared):
    found = fit([trace(requests, gap_s)], requests, call_s, GAP_S, objective)
    assert (found.block, found.objective) == (block, compared)
    assert found.block_s == pytest.approx(block * max(call_s, gap_s or 0))


def test_a_percentile_that_no_block_can_hold_is_refused():
    with pytest.raises(StudyError, match=r"objective p99: found 150 requests per split; its blocks need 200; give a longer trace"):
        fit([trace(150, None)], 150, 1e-6, GAP_S, "p99")


def test_only_long_gaps_are_cut():
    arrival = np.array([0.0, 1e-3, 1.0, 1.0 + GAP_S / 2])
    cut = without_long_gaps(Trace({"x": np.zeros((4, 1))}, arrival), GAP_S)
    np.testing.assert_allclose(np.diff(cut.arrival_s), [1e-3, GAP_S, GAP_S / 2])
    assert without_long_gaps(trace(3, None), 1.0).arrival_s is None
