"""Damped incremental statistics of a packet stream: 20 of them at 5 rates of decay, after each packet.

Mirsky, Doitshman, Elovici, Shabtai: Kitsune, an ensemble of autoencoders for online network intrusion detection, NDSS 2018, section IV and
table II. A stream keeps (weight, linear sum, squared sum) for each rate λ; with Δ the seconds since its last packet, all three are
multiplied by 2^(-λΔ) before the new value is added. Two directions of a conversation also keep the sum of products of their residuals,
which gives the covariance and the correlation. As in the authors' program, what is kept by MAC address is left out:

    source    packets from a host              weight, mean, deviation of sizes
    channel   from one host to another         the same, and magnitude, radius, covariance, correlation with the other direction
    jitter    the gaps in a channel            weight, mean, deviation
    socket    from one port to another         as the channel
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from openinfer.workloads.security.packets import Table

DECAYS = np.array([5.0, 3.0, 1.0, 0.1, 0.01])  # λ, in 1/s
FEATURES = 20 * len(DECAYS)
STREAMS = 4  # source, channel, jitter, socket
PAIRS = (1, 3)  # those with an other direction

Floats = npt.NDArray[np.float64]


class Statistics:
    """The state of all streams that a packet has belonged to. One thread at a time."""

    def __init__(self) -> None:
        self._rows: dict[tuple[object, ...], int] = {}
        self._sums = np.zeros((3, 1024, len(DECAYS)))  # weight, linear sum, squared sum
        self._last = np.zeros(1024)
        self._products: dict[tuple[int, int], tuple[float, Floats]] = {}  # residual products of both directions: when, sum
        self._residuals: dict[int, Floats] = {}

    def update(self, time: float, source: int, target: int, source_port: int, target_port: int, size: float) -> Floats:
        """Add one packet; the statistics of its streams, `[20, 5]`."""
        channel = self._row((1, source, target), time)
        rows = [
            self._row((0, source), time),
            channel,
            self._row((2, source, target), time),
            self._row((3, source, target, source_port, target_port), time),
        ]
        gap = time - self._last[channel]
        values = np.array([size, size, gap, size])[:, None]
        sums = self._sums[:, rows] * np.exp2(-DECAYS * (time - self._last[rows])[:, None])
        sums[0] += 1.0
        sums[1] += values
        sums[2] += values * values
        self._sums[:, rows], self._last[rows] = sums, time
        mean, deviation = _moments(sums)
        others = [
            self._rows.get((1, target, source), -1),
            self._rows.get((3, target, source, target_port, source_port), -1),
        ]
        parts = [np.stack([sums[0], mean, deviation], 1).reshape(-1, len(DECAYS))]
        for stream, other in zip(PAIRS, others, strict=True):
            parts.append(self._pair(time, rows[stream], other, sums[0, stream], mean[stream], deviation[stream], size))
        return np.concatenate(parts)

    def _pair(self, time: float, row: int, other: int, weight: Floats, mean: Floats, deviation: Floats, size: float) -> Floats:
        """Magnitude, radius, covariance, correlation of a stream and its other direction, `[4, 5]`."""
        residual = size - mean
        self._residuals[row] = residual
        if other < 0:
            zero = np.zeros(len(DECAYS))
            return np.stack([mean, deviation**2, zero, zero])
        key = (min(row, other), max(row, other))
        when, products = self._products.get(key, (time, np.zeros(len(DECAYS))))
        products = products * np.exp2(-DECAYS * (time - when)) + residual * self._residuals[other]
        self._products[key] = time, products
        far = self._sums[:, other] * np.exp2(-DECAYS * (time - self._last[other]))
        far_mean, far_deviation = _moments(far)
        covariance = products / (weight + far[0])
        scale = deviation * far_deviation
        correlation = np.where(scale > 1e-9, covariance / np.maximum(scale, 1e-9), 0.0)
        return np.stack([np.hypot(mean, far_mean), np.hypot(deviation**2, far_deviation**2), covariance, np.clip(correlation, -1.0, 1.0)])

    def _row(self, key: tuple[object, ...], time: float) -> int:
        row = self._rows.setdefault(key, len(self._rows))
        if row == len(self._last):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)], 1)
            self._last = np.concatenate([self._last, np.zeros_like(self._last)])
        if not self._sums[0, row, -1]:
            self._last[row] = time
        return row


def features(table: Table) -> npt.NDArray[np.float32]:
    """`[packets, 100]`: the statistics after each packet as sign(v) · log(1 + |v|), for they span eight orders of magnitude."""
    statistics = Statistics()
    columns = [table[name].tolist() for name in ("time", "source", "target", "source_port", "target_port", "size")]
    found = np.empty((len(table), FEATURES))
    for index, packet in enumerate(zip(*columns, strict=True)):
        found[index] = statistics.update(*packet).reshape(-1)
    return np.asarray(np.sign(found) * np.log1p(np.abs(found)), np.float32)


def _moments(sums: Floats) -> tuple[Floats, Floats]:
    mean = sums[1] / sums[0]
    return mean, np.sqrt(np.abs(sums[2] / sums[0] - mean * mean))
