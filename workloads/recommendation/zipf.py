"""Zipf's law on the ranks 1 … count: P(k) ∝ k^-exponent. Drives which ids are asked for, and how large queries are."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Zipf:
    """A finite Zipf distribution; `count` ranks."""

    exponent: float
    count: int

    @functools.cached_property
    def probabilities(self) -> Floats:
        """Of the ranks 1 … count, shape [count]."""
        weights = np.arange(1, self.count + 1, dtype=np.float64) ** -self.exponent
        shares: Floats = weights / weights.sum()
        return shares

    @property
    def mean(self) -> float:
        """The mean rank."""
        return float(self.probabilities @ np.arange(1, self.count + 1))

    def draw(self, generator: np.random.Generator, size: int | tuple[int, ...]) -> Ints:
        """Ranks from 1 on, int64."""
        edges = np.cumsum(self.probabilities)
        edges[-1] = 1.0
        return np.searchsorted(edges, generator.random(size), side="right").astype(np.int64) + 1

    def log_likelihood(self, ranks: Ints) -> float:
        """Log-likelihood of independent draws."""
        return float(np.bincount(ranks, minlength=self.count + 1)[1:] @ np.log(self.probabilities))
