"""Promises are read as people write them, and refused with what is allowed."""

from __future__ import annotations

import pytest
from openinfer.tuner.slo import parse_slos

from openinfer.errors import StudyError


def test_several_promises() -> None:
    slos = parse_slos("p99<2ms, p99.9 <= 500us,p50<1.5 µs")
    assert [(s.quantile, s.limit_ns, s.inclusive) for s in slos] == [(0.99, 2_000_000, False), (0.999, 500_000, True), (0.5, 1_500, False)]
    assert slos[1].expression == "p99.9<=500us"


BAD = ["", "p99", "99<2ms", "p99>2ms", "p99<2", "p99<2days", "p100<2ms", "p0<1ms", "p99<0ns", "p99<2ms,", "p99<-1ms"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_a_promise_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match=r"allowed|at least"):
        parse_slos(text)


def test_check_counts_violations() -> None:
    check = parse_slos("p99<2us")[0].check([1_000] * 500 + [3_000], "winner", "burst", 501)
    assert (check.samples, check.violations, check.status, check.arm) == (501, 1, "undecided", "winner")
