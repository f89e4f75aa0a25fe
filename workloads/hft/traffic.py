"""The requests of `hft`: one per event of the order flow, carrying the features of the book after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from openinfer.workloads.hft.book import DEPTH
from openinfer.workloads.hft.market import Session, features, labels, regime, session
from openinfer.workloads.hft.windows import feature_windows
from openinfer.workloads.trace import Trace

WARM_UP = 200  # events before the averages of the features have settled
HORIZON = 20


def generate(name: str, requests: int, seed: int) -> Trace:
    """A trace of `requests` requests of one regime (`quiet`, `open`, `news`, `burst`). Arrivals start at 0."""
    day = _session(name, requests, seed)
    rows = slice(WARM_UP, WARM_UP + requests)
    return Trace({"x": features(day)[rows]}, day.times[rows] - day.times[WARM_UP], labels(day, HORIZON)[rows])


def generate_tick_lstm(name: str, requests: int, seed: int) -> Trace:
    """The same requests for `tick_lstm`: windows [50, 40] of the features that slide by one event."""
    day, last = _session(name, requests, seed), np.arange(WARM_UP, WARM_UP + requests)
    return Trace({"x": feature_windows(day, last)}, day.times[last] - day.times[WARM_UP], labels(day, HORIZON)[last])


OTHERS = {"tick_lstm": generate_tick_lstm}


def export_raw(folder: Path, name: str, regime_name: str, requests: int, seed: int) -> list[Path]:
    """The session behind a trace, in the columns of LOBSTER (lobsterdata.com): messages (time in s, type, order, size, price in
    units of $0.0001, direction), and row by row the book after the event that the message belongs to (ask price, ask size, bid price,
    bid size, level by level).
    """
    day = _session(regime_name, requests, seed)
    messages, books = folder / f"{name}_message_{DEPTH}.csv", folder / f"{name}_orderbook_{DEPTH}.csv"
    np.savetxt(messages, day.messages, fmt=["%.9f", "%d", "%d", "%d", "%d", "%d"], delimiter=",")
    np.savetxt(books, day.order_book()[np.searchsorted(day.times, day.messages[:, 0])], fmt="%d", delimiter=",")
    return [messages, books]


def _session(name: str, requests: int, seed: int) -> Session:
    return session(regime(name), requests + WARM_UP + HORIZON, seed)
