"""The requests of `security`: one per packet, carrying the damped statistics of its streams; now and then one that is made to break things.

Labels: 0 benign, 1 to 4 the attacks, 5 hostile.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from openinfer.workloads.security import attacks, capture, damped, payloads
from openinfer.workloads.security.hostile import spoil
from openinfer.workloads.security.packets import Table, Traffic
from openinfer.workloads.trace import Trace

WARM_UP = 2000  # packets before the slow statistics have settled
OTHERS = {"byte_network": payloads.generate}
PLACES = {"office": (Traffic(40.0), 8.0), "assault": (Traffic(150.0), 1.0)}  # benign flows; seconds between episodes of one attack


def generate(name: str, requests: int, seed: int) -> Trace:
    """A trace of `requests` packets of one regime (`office`, `assault`). Arrivals start at 0."""
    table = packets(name, requests, seed)
    rows = slice(WARM_UP, WARM_UP + requests)
    x, labels = damped.features(table)[rows], table["label"][rows].copy()
    spoil(x, labels, np.random.default_rng((seed, 2)))
    return Trace({"x": x}, table["time"][rows] - table["time"][WARM_UP], labels)


def packets(name: str, requests: int, seed: int) -> Table:
    """`WARM_UP` + `requests` packets, sorted by time."""
    traffic, pause_s = PLACES[name]
    count = WARM_UP + requests
    # The last flows to begin are cut off: what they overlap with would be missing.
    benign = traffic.simulate(math.ceil(count / traffic.mean_packets + 10 * traffic.rate), np.random.default_rng((seed, 0)))[:count]
    table = np.concatenate([benign, attacks.episodes(np.random.default_rng((seed, 1)), pause_s, float(benign["time"][-1]))])
    return np.asarray(table[np.argsort(table["time"], kind="stable")][:count])


def export_raw(folder: Path, name: str, regime: str, requests: int, seed: int) -> list[Path]:
    """The packets behind a trace, those of the warm-up included, as a capture file of headers."""
    path = folder / f"{name}.pcap"
    capture.write(packets(regime, requests, seed), path)
    return [path]
