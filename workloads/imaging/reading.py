"""When slices are asked for: a list is read at a steady pace, gamma-distributed from slice to slice; emergencies come in between, a Poisson
process of their own.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Reading:
    """`pace_s`: mean seconds from one slice of the list to the next; `shape` of their gamma distribution; `emergency_rate` in 1/s."""

    pace_s: float
    shape: float
    emergency_rate: float

    def simulate(self, requests: int, seed: int) -> tuple[Floats, Bools]:
        """Times in seconds of the first `requests` slices after 0, and which of them are emergencies."""
        generator = np.random.default_rng(seed)
        listed = np.cumsum(generator.gamma(self.shape, self.pace_s / self.shape, requests))
        urgent = np.zeros(0)
        if self.emergency_rate > 0:
            urgent = np.cumsum(generator.exponential(1 / self.emergency_rate, requests))
        times, kinds = np.concatenate([listed, urgent]), np.arange(len(listed) + len(urgent)) >= len(listed)
        order = np.argsort(times, kind="stable")[:requests]
        return times[order], kinds[order]

    def log_likelihood(self, times: Floats, emergency: Bools) -> float:
        """Log-likelihood of what `simulate` gave, on [0, last time]; that the list's next slice has not come by then is left out."""
        gaps, count, scale = np.diff(times[~emergency], prepend=0.0), int(emergency.sum()), self.pace_s / self.shape
        paced = (
            (self.shape - 1) * np.log(gaps).sum()
            - gaps.sum() / scale
            - len(gaps) * (math.lgamma(self.shape) + self.shape * math.log(scale))
        )
        return float(paced) + (count * math.log(self.emergency_rate) if count else 0.0) - self.emergency_rate * float(times[-1])
