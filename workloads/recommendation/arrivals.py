"""A daily curve times a Markov-modulated Poisson process of two states, quiet and burst.

The curve warps time: on the clock τ(t) = ∫ curve, arrivals are a stationary MMPP (Fischer and Meier-Hellstern 1993), so that a busy hour
has more requests and more bursts, and as many requests to a burst as any other. The likelihood follows from that of the MMPP.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Arrivals:
    """`quiet` and `burst` in requests per second; `calm_s` and `burst_s`, the mean times that the states last; the day lasts `day_s` and
    its curve is 1 - `swing` · cos(2π t / day_s): the trace begins at night. Times in seconds.
    """

    quiet: float
    burst: float
    calm_s: float
    burst_s: float
    day_s: float
    swing: float

    @property
    def rate(self) -> float:
        """Requests per second, averaged over the day."""
        return (self.quiet * self.calm_s + self.burst * self.burst_s) / (self.calm_s + self.burst_s)

    def simulate(self, count: int, seed: int) -> tuple[Floats, int]:
        """The times of the first `count` requests, and how often the state changed. The first state is drawn from the stationary law."""
        generator = np.random.default_rng(seed)
        rates, stays = (self.quiet, self.burst), (self.calm_s, self.burst_s)
        state = int(generator.random() * (self.calm_s + self.burst_s) > self.calm_s)
        pieces, begin, have, switches = [], 0.0, 0, -1
        while have < count:
            stay = generator.exponential(stays[state])
            arrived = generator.poisson(rates[state] * stay)
            pieces.append(begin + np.sort(generator.random(arrived)) * stay)
            begin, have, state, switches = begin + stay, have + arrived, 1 - state, switches + 1
        return self._by_clock(np.concatenate(pieces)[:count]), switches

    def log_likelihood(self, times: Floats) -> float:
        """Of the times of all requests from 0 to the last one."""
        angle = 2 * math.pi / self.day_s
        curve = np.log1p(-self.swing * np.cos(angle * times)).sum()
        gaps = np.diff(self._warped(times), prepend=0.0)
        return float(curve) + self._stationary(gaps)

    def _stationary(self, gaps: Floats) -> float:
        """Of the gaps of the MMPP: log π ∏ exp((Q - Λ) gap) Λ 1, the products paired up so that NumPy does each level at once."""
        leave = (1 / self.calm_s, 1 / self.burst_s)
        a, b, c, d = -leave[0] - self.quiet, leave[0], leave[1], -leave[1] - self.burst
        middle, half = (a + d) / 2, (a - d) / 2
        root = math.sqrt(half * half + b * c)
        # exp(M x) = e^(middle x) (cosh(root x) I + sinh(root x) / root (M - middle I)), scaled by its largest term.
        scale = float(((middle + root) * gaps).sum())
        shrink = np.exp(-2 * root * gaps)
        cosh, sinh = (1 + shrink) / 2, (1 - shrink) / (2 * root)
        products = np.empty((len(gaps), 2, 2))
        products[:, 0, 0], products[:, 0, 1] = (cosh + sinh * half) * self.quiet, sinh * b * self.burst
        products[:, 1, 0], products[:, 1, 1] = sinh * c * self.quiet, (cosh - sinh * half) * self.burst
        while len(products) > 1:
            odd = products[-1:] if len(products) % 2 else products[:0]
            left, right = products[0 : len(products) - 1 : 2], products[1::2]
            first = np.empty_like(left)
            for i in (0, 1):
                for j in (0, 1):
                    first[:, i, j] = left[:, i, 0] * right[:, 0, j] + left[:, i, 1] * right[:, 1, j]
            size = first.max(axis=(1, 2))
            scale += float(np.log(size).sum())
            products = np.concatenate([first / size[:, None, None], odd])
        start = np.array([self.calm_s, self.burst_s]) / (self.calm_s + self.burst_s)
        return scale + math.log(float(start @ products[0] @ np.ones(2)))

    def _warped(self, times: Floats) -> Floats:
        angle = 2 * math.pi / self.day_s
        warped: Floats = times - self.swing / angle * np.sin(angle * times)
        return warped

    def _by_clock(self, warped: Floats) -> Floats:
        """The inverse of `_warped`, by Newton's method kept between the bounds that the curve's swing allows."""
        angle, reach = 2 * math.pi / self.day_s, self.swing * self.day_s / (2 * math.pi)
        low, high = warped - reach, warped + reach
        times = warped.copy()
        for _ in range(100):
            miss = self._warped(times) - warped
            if float(np.abs(miss).max(initial=0.0)) <= 1e-13 * max(1.0, float(warped[-1])):
                break
            high, low = np.where(miss > 0, times, high), np.where(miss < 0, times, low)
            step = times - miss / (1 - self.swing * np.cos(angle * times))
            times = np.where((step >= low) & (step <= high), step, (low + high) / 2)
        return np.maximum.accumulate(np.maximum(times, 0.0))
