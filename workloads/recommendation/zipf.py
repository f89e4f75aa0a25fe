"""Zipf's law, P(k) ∝ k^-exponent, on the ranks 1 … count or on powers of two. Drives which ids are asked for, and how large queries are."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Zipf:
    """A finite Zipf distribution on `count` values: the ranks from 1 on."""

    exponent: float
    count: int

    @functools.cached_property
    def values(self) -> Ints:
        """What can be drawn, ascending, shape [count]."""
        return np.arange(1, self.count + 1)

    @functools.cached_property
    def probabilities(self) -> Floats:
        """Of the values, shape [count]."""
        weights = self.values.astype(np.float64) ** -self.exponent
        shares: Floats = weights / weights.sum()
        return shares

    @property
    def mean(self) -> float:
        """The mean value."""
        return float(self.probabilities @ self.values)

    def draw(self, generator: np.random.Generator, size: int | tuple[int, ...]) -> Ints:
        """Independent values, int64."""
        edges = np.cumsum(self.probabilities)
        edges[-1] = 1.0
        drawn: Ints = self.values[np.searchsorted(edges, generator.random(size), side="right")]
        return drawn

    def log_likelihood(self, drawn: Ints) -> float:
        """Log-likelihood of independent draws."""
        counts = np.bincount(np.searchsorted(self.values, drawn), minlength=self.count)
        return float(counts @ np.log(self.probabilities))


class Doubling(Zipf):
    """On the first `count` powers of two, 1 included: as heavy a tail as the ranks have with an exponent one larger."""

    @functools.cached_property
    def values(self) -> Ints:
        """What can be drawn, ascending, shape [count]."""
        return np.left_shift(1, np.arange(self.count))
