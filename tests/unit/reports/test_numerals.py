"""Numbers on the page: sensible figures, units, no exponents, no needless digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from openinfer.profiles.study_record import Interval
from openinfer.reports import numerals


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u2212", "-")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (12, "12.0 ns"),
        (999.9, "1.00 µs"),
        (1500, "1.50 µs"),
        (999_999, "1.00 ms"),
        (2.5e6, "2.50 ms"),
        (3e9, "3.00 s"),
        (5e12, "5,000 s"),
    ],
)
def test_times(value, text):
    assert plain(numerals.time(value)) == text


def test_times_keep_three_figures():
    seed = int(np.random.default_rng().integers(1 << 32))
    print(f"{seed=}")
    for value in 10 ** np.random.default_rng(seed).uniform(0, 11.9, 300):
        text, unit = plain(numerals.time(float(value))).split(" ")
        back = float(text.replace(",", "")) * {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}[unit]
        assert back == pytest.approx(value, rel=5.1e-3) and "e" not in text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "0.0%"),
        (0.99999, "0.0%"),
        (0.9, "-10.0%"),
        (1.05, "+5.0%"),
        (0.5, "-50%"),
        (9.0, "+800%"),
        (12.0, "more than 10×"),
        (math.inf, "more than 10×"),
    ],
)
def test_changes(ratio, text):
    assert plain(numerals.change(ratio)) == text


def test_the_rest():
    assert plain(numerals.limit(1_000_000)) == "1 ms" and plain(numerals.limit(250_000)) == "250 µs" and plain(numerals.limit(2e9)) == "2 s"
    assert [numerals.percentile(q) for q in (0.5, 0.99, 0.999, 0.9999, 0.995)] == ["50", "99", "99.9", "99.99", "99.5"]
    assert plain(numerals.size(111 << 20)) == "111 MiB" and plain(numerals.size(1536 << 20)) == "1.50 GiB"
    assert plain(numerals.scientific(1.52e-6)) == "1.5 × 10⁻⁶" and numerals.scientific(0) == "0"
    assert numerals.percent(0.0015) == "0.15%" and numerals.percent(1.48) == "148%" and numerals.percent(1e-6) == "under 0.01%"
    assert numerals.interval(None) == "not measured" and plain(numerals.interval(Interval(1, 0.9, 1.1))) == "-10.0% to +10.0%"
    assert numerals.moment("2026-11-25T00:57:29+00:00") == "25 November 2026, 00:57 UTC" and numerals.moment("yesterday") == "yesterday"
    assert numerals.sentence("p99 by -49.3% (to +2%), A-2 stays") == "p99 by \u221249.3% (to +2%), A-2 stays"
    assert plain(numerals.seconds(38.234)) == "38.2 s" and plain(numerals.seconds(200)) == "3 min 20 s"
