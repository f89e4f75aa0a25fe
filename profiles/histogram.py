"""HDR histograms of latencies, and their form in a record. They are merged, never averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

LARGEST_NS = 3_600 * 10**9
DIGITS = 3  # significant decimal digits that a histogram keeps


def histogram(values_ns: npt.NDArray[Any]) -> HdrHistogram:
    """Of integer nanoseconds, to three digits; above an hour counts as an hour."""
    made = HdrHistogram(1, LARGEST_NS, DIGITS)
    for value, count in zip(*np.unique(_coarse(values_ns), return_counts=True), strict=True):
        made.record_value(int(value), int(count))
    return made


def _coarse(values_ns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Values that one bucket of the histogram holds together made equal: recording costs a microsecond per distinct value."""
    values = np.clip(np.asarray(values_ns, np.int64), 0, LARGEST_NS)
    shift = np.maximum(0, np.floor(np.log2(np.maximum(values, 1))).astype(np.int64) - 10)
    coarse: npt.NDArray[np.int64] = (values >> shift) << shift
    return coarse


def quantile(made: HdrHistogram, q: float) -> int:
    """The value that a share `q` of all does not exceed, in ns."""
    return int(made.get_value_at_percentile(100 * q))


def decode(encoded: str) -> HdrHistogram:
    """A histogram from a record."""
    return HdrHistogram.decode(encoded.encode())


def encode(made: HdrHistogram) -> str:
    """A histogram for a record: HdrHistogram's own V2 format, base64."""
    encoded = made.encode()
    return encoded.decode() if isinstance(encoded, bytes) else str(encoded)


def add_encoded(one: str, other: str) -> str:
    """Two histograms as one, every count kept."""
    made = decode(one)
    made.add(decode(other))
    return encode(made)
