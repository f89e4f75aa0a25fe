"""The requests of `recommendation`: a user asks for the ranking of some candidate items; one row a candidate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from openinfer.workloads.recommendation.arrivals import Arrivals
from openinfer.workloads.recommendation.population import items, population, users
from openinfer.workloads.recommendation.store import FeatureStore
from openinfer.workloads.recommendation.zipf import Doubling, Ints
from openinfer.workloads.trace import Trace

# Candidates of a query: 1 to 64, 4.8 on average. Lists are padded to powers of two, for the engine plans once for each number of rows.
SIZES = Doubling(0.8, 7)
BLOCKING = 0.4  # share of the requests whose user is not at hand and has to be looked up
RATE = 4_000.0  # requests per second, on average
REGIMES = {
    "even": Arrivals(RATE, RATE, 1.0, 1.0, 1.0, 0.0),
    # A day of 2.5 seconds; bursts of 5 ms with four times the requests, three times as much calm between them.
    "day": Arrivals(RATE / 1.75, RATE / 1.75 * 4, 0.015, 0.005, 2.5, 0.5),
}

open_store = FeatureStore


def generate(name: str, requests: int, seed: int, blocking: float = BLOCKING) -> Trace:
    """A trace of `requests` queries of one regime (`even`, `day`). Labels are clicks, 1 or 0, row by row."""
    times, _ = REGIMES[name].simulate(requests, seed)
    draw = np.random.default_rng((seed, 1))
    sizes, who, offered = query(draw, requests)
    asking = np.repeat(who, sizes)
    clicked = draw.random(len(asking)) < population().click(asking, offered)
    look_ups = np.where(draw.random(requests) < blocking, who, -1)
    return Trace(population().rows(asking, offered), times - times[0], clicked.astype(np.int64), sizes, look_ups)


def query(draw: np.random.Generator, requests: int) -> tuple[Ints, Ints, Ints]:
    """Sizes [requests], users [requests], and the items of all rows."""
    sizes = SIZES.draw(draw, requests)
    return sizes, users(draw, requests), items(draw, int(sizes.sum()))


def export_raw(folder: Path, name: str, regime_name: str, requests: int, seed: int) -> list[Path]:
    """The clicks behind a trace as a log in the columns of the Criteo data set: label, 13 numbers, 26 ids in hexadecimal, tab-separated."""
    trace = generate(regime_name, requests, seed)
    path = folder / f"{name}_clicks.tsv"
    assert trace.labels is not None
    counts = np.round(np.expm1(trace.inputs["dense"].astype(np.float64))).astype(np.int64)
    with path.open("w", encoding="ascii") as file:
        for label, numbers, ids in zip(trace.labels, counts, trace.inputs["ids"], strict=True):
            file.write("\t".join([str(label), *map(str, numbers), *(f"{value:08x}" for value in ids)]) + "\n")
    return [path]
