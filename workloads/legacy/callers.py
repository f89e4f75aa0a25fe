"""Who calls, how often, and in which form the numbers come: each kind of caller is a Poisson process of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def _strided(x: Any) -> Any:
    wide = np.zeros((x.shape[0], 2 * x.shape[1]), x.dtype)
    wide[:, ::2] = x
    return wide[:, ::2]


# What an old caller makes of rows in the model's own dtype.
FORMS: dict[str, Callable[[Any], Any]] = {
    "native": lambda x: x,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "strided": _strided,
    "Fortran order": np.asfortranarray,
    "float64": lambda x: x.astype(np.float64),
    "float16": lambda x: x.astype(np.float16),
    "integers": lambda x: np.rint(x).astype(np.int64),
}


@dataclasses.dataclass(frozen=True)
class Callers:
    """`rates` in calls per second by form; a call has 1 + Poisson(`more_rows`) rows."""

    rates: Mapping[str, float]
    more_rows: float

    def simulate(self, calls: int, seed: int) -> tuple[Floats, Ints, Ints]:
        """Of the first `calls` calls: times in seconds, form as an index into `rates`, number of rows."""
        generator = np.random.default_rng((seed, 3))
        total = sum(self.rates.values())
        times = np.cumsum(generator.exponential(1 / total, calls))
        forms = generator.choice(len(self.rates), calls, p=np.array(list(self.rates.values())) / total)
        return times, forms, 1 + generator.poisson(self.more_rows, calls)

    def log_likelihood(self, times: Floats, forms: Ints, rows: Ints) -> float:
        """Log-likelihood on [0, last time]; what does not depend on parameters is left out."""
        counts = np.bincount(forms, minlength=len(self.rates))
        called = sum(n * math.log(rate) - rate * times[-1] for n, rate in zip(counts.tolist(), self.rates.values(), strict=True))
        return float(called + (rows - 1).sum() * math.log(self.more_rows) - len(rows) * self.more_rows)
