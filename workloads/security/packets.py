"""Benign traffic of an office network, as a stream of packet headers.

Flows begin as a Poisson process; each belongs to an application. A flow has a geometric number of packets, log-normal gaps between them,
a direction drawn for each, and sizes that are either full or exponential between a header and a full packet. Clients are drawn evenly,
servers by Zipf's law.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CLIENTS, SERVERS = 64, 256
FIRST_SERVER, FIRST_OUTSIDER = 1000, 100_000  # numbers of hosts: clients from 0, servers, whoever attacks
HEADER, FULL = 54, 1500  # bytes
SYN, ACK, RST = 2, 16, 4  # TCP flags
BENIGN = 0

TABLE = np.dtype(
    [
        ("time", np.float64),
        ("source", np.int64),
        ("target", np.int64),
        ("source_port", np.int64),
        ("target_port", np.int64),
        ("size", np.float64),
        ("flags", np.int64),
        ("label", np.int64),
        ("flow", np.int64),
    ]
)
Table = npt.NDArray[np.void]


@dataclasses.dataclass(frozen=True)
class Application:
    """`port` names it. `share` of the flows; `packets`, mean of a flow; `gap` and `spread`, of the logarithm of the seconds between two
    packets; `up`, the share of packets that the client sends; `full`, the share of full packets; `mean`, the scale of the others' bytes.
    """

    port: int
    share: float
    packets: float
    gap: float
    spread: float
    up: float
    full: float
    mean: float


OFFICE = (
    Application(443, 0.45, 18.0, -4.6, 1.2, 0.40, 0.35, 300.0),
    Application(53, 0.25, 3.0, -3.8, 0.8, 0.55, 0.10, 90.0),
    Application(22, 0.10, 30.0, -3.0, 1.4, 0.50, 0.05, 120.0),
    Application(1935, 0.10, 40.0, -5.0, 0.6, 0.15, 0.80, 500.0),
    Application(445, 0.10, 25.0, -4.8, 1.0, 0.60, 0.50, 400.0),
)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """`rate`, flows per second; `zipf`, the exponent of the servers' popularity."""

    rate: float
    zipf: float = 0.9
    applications: tuple[Application, ...] = OFFICE

    @property
    def mean_packets(self) -> float:
        """Of a flow."""
        return sum(one.share * one.packets for one in self.applications)

    def simulate(self, flows: int, generator: np.random.Generator) -> Table:
        """The packets of the first `flows` flows, sorted by time; a structured array of `TABLE`."""
        starts = np.cumsum(generator.exponential(1 / self.rate, flows))
        kinds = generator.choice(len(self.applications), flows, p=[one.share for one in self.applications])
        each = np.array([dataclasses.astuple(one) for one in self.applications])
        counts = generator.geometric(1 / each[kinds, 2])
        clients = generator.integers(CLIENTS, size=flows)
        servers = FIRST_SERVER + generator.choice(SERVERS, flows, p=popularity(self.zipf))
        ports = generator.integers(1024, 65536, flows)
        flow = np.repeat(np.arange(flows), counts)
        of_packet = each[kinds[flow]]
        gaps = np.exp(of_packet[:, 3] + of_packet[:, 4] * generator.standard_normal(len(flow)))
        first = np.flatnonzero(np.diff(flow, prepend=-1))
        gaps[first] = 0.0
        passed = np.cumsum(gaps)
        up = generator.random(len(flow)) < of_packet[:, 5]
        up[first] = True
        table = np.zeros(len(flow), TABLE)
        table["time"] = starts[flow] + passed - np.repeat(passed[first], counts)
        sides = [(clients[flow], servers[flow]), (ports[flow], of_packet[:, 0].astype(np.int64))]
        for (near, far), (source, target) in zip(sides, (("source", "target"), ("source_port", "target_port")), strict=True):
            table[source], table[target] = np.where(up, near, far), np.where(up, far, near)
        full = generator.random(len(flow)) < of_packet[:, 6]
        table["size"] = np.where(full, FULL, HEADER + truncated_exponential(of_packet[:, 7], FULL - HEADER, generator.random(len(flow))))
        table["flags"] = ACK
        table["flags"][first] = SYN
        table["flow"] = flow
        return table[np.argsort(table["time"], kind="stable")]


def popularity(zipf: float) -> Floats:
    """Probability of each server."""
    weights = np.arange(1, SERVERS + 1) ** -zipf
    return np.asarray(weights / weights.sum())


def truncated_exponential(scale: Floats | float, limit: float, uniform: Floats) -> Floats:
    """Exponential values below `limit`, by the inverse of their distribution."""
    return np.asarray(-scale * np.log1p(uniform * np.expm1(-limit / scale)))


def maximum_likelihood(table: Table, ports: tuple[int, ...]) -> Traffic:
    """The parameters under which whole flows are most likely; `ports` are those of the applications."""
    order = np.lexsort((table["time"], table["flow"]))
    table = table[order]
    first = np.flatnonzero(np.diff(table["flow"], prepend=-1))
    opening = table[first]
    counts = np.diff(np.append(first, len(table)))
    within = np.ones(len(table), bool)
    within[first] = False
    gaps = np.diff(table["time"], prepend=0.0)
    port = np.repeat(opening["target_port"], counts)
    up = table["source"] == np.repeat(opening["source"], counts)
    servers = opening["target"] - FIRST_SERVER
    return Traffic(
        rate=len(first) / float(opening["time"].max()),
        zipf=_zipf(np.bincount(servers, minlength=SERVERS)),
        applications=tuple(
            _application(one, len(first), counts[opening["target_port"] == one], gaps, up, table["size"], port == one, within)
            for one in ports
        ),
    )


def _application(
    port: int,
    flows: int,
    counts: Ints,
    gaps: Floats,
    up: npt.NDArray[np.bool_],
    sizes: Floats,
    own: npt.NDArray[np.bool_],
    within: npt.NDArray[np.bool_],
) -> Application:
    logs, sizes = np.log(gaps[own & within]), sizes[own]
    partial = sizes[sizes < FULL] - HEADER
    return Application(
        port,
        len(counts) / flows,
        float(counts.mean()),
        float(logs.mean()),
        float(logs.std()),
        float(up[own & within].mean()),
        float((sizes == FULL).mean()),
        _scale(float(partial.mean()), FULL - HEADER),
    )


def _scale(mean: float, limit: float) -> float:
    """The scale of a truncated exponential with this mean: the likelihood's equation, solved."""
    return float(brentq(lambda scale: scale - limit / np.expm1(limit / scale) - mean, limit / 500, 100 * limit))


def _zipf(counts: Ints) -> float:
    """The exponent: where the expected logarithm of the rank is the mean one."""
    ranks = np.log(np.arange(1, SERVERS + 1))
    mean = float(counts @ ranks / counts.sum())
    return float(brentq(lambda zipf: popularity(zipf) @ ranks - mean, 0.01, 5.0))
