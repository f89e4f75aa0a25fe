"""The requests of `hft`: one per event of the order flow, carrying the features of the book after it."""

from __future__ import annotations

from openinfer.workloads.hft.market import features, labels, regime, session
from openinfer.workloads.trace import Trace

WARM_UP = 200  # events before the averages of the features have settled
HORIZON = 20


def generate(name: str, requests: int, seed: int) -> Trace:
    """A trace of `requests` requests of one regime (`quiet`, `burst`). Arrivals start at 0."""
    day = session(regime(name), requests + WARM_UP + HORIZON, seed)
    rows = slice(WARM_UP, WARM_UP + requests)
    return Trace({"x": features(day)[rows]}, day.times[rows] - day.times[WARM_UP], labels(day, HORIZON)[rows])
