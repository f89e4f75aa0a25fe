"""How far answers lie from float64, and what counts as another answer altogether."""

from __future__ import annotations

import numpy as np
import pytest

from openinfer.frontend.float64 import discrepancy, largest

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.5], [0.0], 0.5),
        ([NAN, 1.0], [NAN, 1.0], 0.0),
        ([INF, -INF], [INF, -INF], 0.0),
        ([NAN], [1.0], INF),
        ([1.0], [NAN], INF),
        ([INF], [-INF], INF),
        ([1.0, 2.0], [1.0], INF),
        ([], [], 0.0),
    ],
)
def test_floats(found, expected, error):
    assert discrepancy(np.array(found, np.float32), np.array(expected)) == error


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_everything_else_is_equal_or_not(dtype):
    assert discrepancy(np.array([1, 0], dtype), np.array([1, 0], dtype)) == 0
    assert discrepancy(np.array([1, 0], dtype), np.array([0, 1], dtype)) == INF


def test_the_scale_leaves_out_what_is_not_finite():
    assert largest(np.array([NAN, INF, -3.0])) == 3.0
    assert largest(np.array([NAN])) == largest(np.zeros(2)) == largest(np.array(["a"])) == 1.0
