"""Promises about tail latency as people write them: "p99<2ms", "p99.9<=500us", several separated by commas."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from openinfer.profiles.study_record import SloCheck
from openinfer.tuner.statistics import quantile_bound

from openinfer.errors import StudyError

UNITS_NS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_PROMISE = re.compile(r"p(?P<percentile>\d+(?:\.\d+)?)(?P<relation><=|<)(?P<limit>\d+(?:\.\d+)?)(?P<unit>[a-zµμ]+)")
_ALLOWED = 'allowed: a percentile, < or <=, a time in ns, us, ms or s, such as "p99<2ms" or "p99.9<=500us,p50<10us"'


@dataclasses.dataclass(frozen=True)
class Slo:
    """One promise: the quantile stays under a limit."""

    expression: str
    quantile: float
    limit_ns: int
    inclusive: bool

    def check(self, samples_ns: Any, arm: str, scenario: str, distinct: int) -> SloCheck:
        """Judge the promise on corrected latencies of `distinct` different requests."""
        bound = quantile_bound(samples_ns, self.quantile, self.limit_ns, inclusive=self.inclusive, distinct=distinct)
        return SloCheck(
            expression=self.expression,
            arm=arm,
            scenario=scenario,
            quantile=self.quantile,
            limit_ns=self.limit_ns,
            status=bound.status,
            samples=bound.samples,
            violations=bound.violations,
            observed_ns=int(bound.observed) if bound.samples else 0,
            upper_ns=None if bound.upper is None else int(bound.upper),
            distinct=distinct,
        )


def parse_slos(text: str) -> list[Slo]:
    """All promises of an expression; `StudyError` says what is allowed."""
    return [_parse(part) for part in text.split(",")]


def _parse(text: str) -> Slo:
    match = _PROMISE.fullmatch(re.sub(r"\s+", "", text).lower())
    if match is None:
        raise StudyError(f"SLO {text.strip()!r} is not understood; {_ALLOWED}")
    percentile, unit = float(match["percentile"]), match["unit"]
    if unit not in UNITS_NS:
        raise StudyError(f"SLO {text.strip()!r}: unknown unit {unit!r}; {_ALLOWED}")
    if not 0 < percentile < 100:
        raise StudyError(f"SLO {text.strip()!r}: percentile {match['percentile']} is out of range; allowed: above 0 and below 100")
    limit = round(float(match["limit"]) * UNITS_NS[unit])
    if limit < 1:
        raise StudyError(f"SLO {text.strip()!r}: the limit must be at least 1 ns; {_ALLOWED}")
    return Slo(re.sub(r"\s+", "", text), round(percentile / 100, 9), limit, match["relation"] == "<=")
