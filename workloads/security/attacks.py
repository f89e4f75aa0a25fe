"""Attacks by script, as packets among benign ones: what is sent is fixed, when and between whom is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from openinfer.workloads.security.packets import (
    ACK,
    CLIENTS,
    FIRST_OUTSIDER,
    FIRST_SERVER,
    FULL,
    HEADER,
    RST,
    SERVERS,
    SYN,
    TABLE,
    Table,
)

SCAN, FLOOD, BRUTE_FORCE, EXFILTRATION = 1, 2, 3, 4  # labels
Generator = np.random.Generator


def slowness(generator: Generator) -> float:
    """How many times slower than it could this attacker goes, so as not to be seen: between 1 and 20."""
    return float(np.exp(generator.uniform(0.0, np.log(20.0))))


def scan(generator: Generator, packets: int) -> Table:
    """One host asks for the ports of another, one SYN each, and is refused by a RST; 2 to 40 ms apart."""
    table = _empty(packets, SCAN, generator.exponential(2e-3 * slowness(generator), packets))
    asks = np.arange(packets) % 2 == 0
    attacker, victim = _outsider(generator), int(generator.integers(CLIENTS))
    ports = np.repeat(generator.permutation(65535)[: -(-packets // 2)] + 1, 2)[:packets]
    own = int(generator.integers(1024, 65536))
    _between(table, asks, (attacker, victim), (np.full(packets, own), ports))
    table["size"], table["flags"] = HEADER, np.where(asks, SYN, RST)
    return table


def flood(generator: Generator, packets: int) -> Table:
    """SYNs from 50 hosts to one port of one server, 100 µs apart, never followed by anything."""
    table = _empty(packets, FLOOD, generator.exponential(1e-4, packets))
    table["source"] = FIRST_OUTSIDER + generator.choice(generator.integers(1 << 24, size=50), packets)
    table["target"], table["target_port"] = FIRST_SERVER + generator.integers(SERVERS), 443
    table["source_port"] = generator.integers(1024, 65536, packets)
    table["size"], table["flags"] = HEADER, SYN
    return table


def brute_force(generator: Generator, packets: int) -> Table:
    """Sessions of twelve packets with a login server, one after the other, each from another port; 8 to 160 ms between packets."""
    table = _empty(packets, BRUTE_FORCE, generator.exponential(8e-3 * slowness(generator), packets))
    session, step = np.divmod(np.arange(packets), 12)
    asks = step % 2 == 0
    ends = _outsider(generator), FIRST_SERVER + int(generator.integers(SERVERS))
    _between(table, asks, ends, (20_000 + session, np.full(packets, 22)))
    table["size"] = HEADER + np.where(asks, 60, 110) + generator.integers(0, 40, packets)
    table["flags"] = np.where(step == 0, SYN, ACK)
    return table


def exfiltration(generator: Generator, packets: int) -> Table:
    """A client sends large packets to a host outside over one connection that is rarely acknowledged; 6 to 120 ms apart."""
    table = _empty(packets, EXFILTRATION, generator.exponential(6e-3 * slowness(generator), packets))
    sends = generator.random(packets) < 0.9
    ends = int(generator.integers(CLIENTS)), _outsider(generator)
    _between(table, sends, ends, (np.full(packets, generator.integers(1024, 65536)), np.full(packets, 443)))
    full = generator.random(packets) < generator.uniform(0.3, 1.0)
    table["size"] = np.where(sends, np.where(full, FULL, generator.integers(HEADER, FULL, packets)), HEADER)
    table["flags"] = ACK
    return table


# Script, packets of one episode.
SCRIPTS: tuple[tuple[Callable[[Generator, int], Table], int], ...] = ((scan, 300), (flood, 1500), (brute_force, 240), (exfiltration, 240))


def episodes(generator: Generator, pause_s: float, until: float) -> Table:
    """All scripts again and again until `until`, each by itself, pauses of `pause_s` on average between its episodes; unsorted."""
    found = []
    for script, packets in SCRIPTS:
        begin = generator.exponential(pause_s)
        while begin < until:
            one = script(generator, packets)
            one["time"] += begin
            found.append(one)
            begin = float(one["time"][-1]) + generator.exponential(pause_s)
    return np.concatenate([np.zeros(0, TABLE), *found])


def _empty(packets: int, label: int, gaps: npt.NDArray[np.float64]) -> Table:
    table = np.zeros(packets, TABLE)
    table["time"], table["label"], table["flow"] = np.cumsum(gaps), label, -1
    return table


def _outsider(generator: Generator) -> int:
    return FIRST_OUTSIDER + int(generator.integers(1 << 24))


def _between(table: Table, forward: npt.NDArray[np.bool_], hosts: tuple[int, int], ports: tuple[Any, Any]) -> None:
    """Fill in both ends, from the first to the second where `forward`."""
    table["source"], table["target"] = np.where(forward, *hosts), np.where(forward, *hosts[::-1])
    table["source_port"], table["target_port"] = np.where(forward, *ports), np.where(forward, *ports[::-1])
