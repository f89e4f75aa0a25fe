"""One simulated session: Hawkes arrivals drive the book; every event gives messages, a state of the book and the mid price."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from openinfer.workloads.hft.book import DEPTH, EXECUTE, TICK, Book
from openinfer.workloads.hft.hawkes import Hawkes

FEATURE_DEPTH = 7
KINDS = 6  # of the order flow
NEWS = 6  # a seventh type: no order itself, it makes many


@dataclasses.dataclass(frozen=True)
class Session:
    """`times` [n] in seconds; `kinds` [n] of the order flow; `levels` [n, DEPTH, 4] after each event, prices in ticks; `mid` [n] in ticks;
    `traded` [n] signed volume of executions (buyer-initiated positive); `messages` [m, 6] in LOBSTER's columns."""

    times: npt.NDArray[np.float64]
    kinds: npt.NDArray[np.int64]
    levels: npt.NDArray[np.int64]
    mid: npt.NDArray[np.float64]
    traded: npt.NDArray[np.int64]
    messages: npt.NDArray[np.float64]

    def order_book(self) -> npt.NDArray[np.int64]:
        """[n, 4 · DEPTH] in LOBSTER's columns and price units: ask price 1, ask size 1, bid price 1, bid size 1, ask price 2, …"""
        book = self.levels.copy()
        book[:, :, [0, 2]] *= TICK
        return book.reshape(len(book), -1)


def regime(name: str) -> Hawkes:
    """`quiet`: 400 base events/s, 0.45 children each, 5 ms after their parent. `burst`: 1,500 base events/s, 0.86 children each, 10 µs
    after their parent, as among co-located participants: clusters of dozens of events, faster than one call can follow another.

    `open` and `news` are quiet, but for a seventh type that excites all others at once: 1,500 orders follow the opening bell within
    20 ms, 250 every piece of news within 2 ms, of which there is one in 2 s; each order has 0.6 children, as long after their parent.
    """
    shares = np.array([0.25, 0.25, 0.15, 0.15, 0.10, 0.10])
    same, opposite = 0.75, 0.25
    kernel = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            kernel[i, j] = shares[i] * (same if i % 2 == j % 2 else opposite) * 2
    kernel /= np.abs(np.linalg.eigvals(kernel)).max()
    if name in SHOCKS:
        shock, rate, decay = SHOCKS[name]
        branching = np.zeros((KINDS + 1, KINDS + 1))
        branching[:KINDS, :KINDS], branching[:KINDS, NEWS] = 0.6 * kernel, shock * shares
        return Hawkes(np.append(400.0 * shares, rate), branching, decay)
    base, children, decay = {"quiet": (400.0, 0.45, 200.0), "burst": (1500.0, 0.86, 100_000.0)}[name]
    return Hawkes(base * shares, children * kernel, decay)


# Regimes with shocks: orders that a shock makes directly; shocks per second, 0 where there is one at the beginning alone; decay in 1/s.
SHOCKS = {"open": (1500.0, 0.0, 50.0), "news": (250.0, 0.5, 500.0)}


def orders(flow: Hawkes, events: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Times and kinds of the first `events` orders; news is left out. A flow whose news has no rate begins with the opening bell."""
    if len(flow.base) == KINDS:
        return flow.simulate(events, seed)
    drawn = events
    while True:
        times, kinds = flow.simulate(drawn, seed, NEWS if flow.base[NEWS] == 0 else None)
        kept = np.flatnonzero(kinds < KINDS)[:events]
        if len(kept) == events:
            return times[kept], kinds[kept]
        drawn += max(16, 2 * (events - len(kept)))


def session(flow: Hawkes, events: int, seed: int) -> Session:
    """Simulate `events` events; the same seed gives the same session."""
    times, kinds = orders(flow, events, seed)
    book = Book(np.random.default_rng((seed, 1)))
    levels = np.empty((events, DEPTH, 4), np.int64)
    traded = np.zeros(events, np.int64)
    messages: list[tuple[float, int, int, int, int, int]] = []
    for k, (time, kind) in enumerate(zip(times.tolist(), kinds.tolist(), strict=True)):
        for message in book.apply(kind):
            messages.append((time, message.kind, message.order, message.size, message.price * TICK, message.direction))
            if message.kind == EXECUTE:
                traded[k] -= message.direction * message.size
        levels[k] = book.levels(DEPTH)
    mid = (levels[:, 0, 0] + levels[:, 0, 2]) / 2
    return Session(times, kinds, levels, mid, traded, np.array(messages))


def features(day: Session) -> npt.NDArray[np.float32]:
    """[n, 40]: seven levels of price offset and log size on both sides, imbalances, spread, and exponentially weighted recent flow."""
    top = day.levels[:, :FEATURE_DEPTH].astype(np.float64)
    sizes = np.log1p(top[:, :, [1, 3]])
    offsets = np.stack([top[:, :, 0] - day.mid[:, None], day.mid[:, None] - top[:, :, 2]], axis=2)
    ask, bid = top[:, :, 1], top[:, :, 3]
    columns = [(bid[:, :d].sum(1) - ask[:, :d].sum(1)) / (bid[:, :d].sum(1) + ask[:, :d].sum(1)) for d in (1, 3, 7)]
    columns.append(top[:, 0, 0] - top[:, 0, 2])
    gaps = np.diff(day.times, prepend=day.times[0])
    moves = np.diff(day.mid, prepend=day.mid[0])
    flow = np.sign(day.traded) * np.log1p(np.abs(day.traded))
    columns += [_average(flow, span) for span in (5, 50)] + [_average(moves, span) for span in (5, 50)]
    columns += [np.log(_average(gaps, span) + 1e-6) for span in (5, 50)]
    columns += [_average(np.where(day.kinds % 2 == 0, 1.0, -1.0), span) for span in (5, 50)]
    return np.column_stack([offsets.reshape(len(top), -1), sizes.reshape(len(top), -1), *columns]).astype(np.float32)


def labels(day: Session, horizon: int = 20) -> npt.NDArray[np.int64]:
    """[n - horizon]: 0, 1, 2 where the mid price is lower, equal, higher `horizon` events later."""
    return (np.sign(day.mid[horizon:] - day.mid[:-horizon]) + 1).astype(np.int64)


def _average(values: npt.NDArray[np.float64], span: int) -> npt.NDArray[np.float64]:
    """Exponentially weighted mean, past values only."""
    from scipy.signal import lfilter

    weight = 2.0 / (span + 1)
    averaged: npt.NDArray[np.float64] = lfilter([weight], [1.0, weight - 1.0], values)
    return averaged
