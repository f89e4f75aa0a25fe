"""A sensor's clock: frames at a fixed rate with jitter, slower for as long as the device is hot.

Gaps are log-normal around the period of the state, `cool` or `hot`; the state is a Markov chain over frames. The likelihood is that of the
hidden Markov model, whose states no trace shows.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Frames:
    """`rate` in frames per second while cool; `jitter`, the deviation of a gap's logarithm; while hot a gap is `slow` times as long.
    A cool spell has `cool_frames` on average, a hot one `hot_frames`; without slow-downs `slow` is 1.
    """

    rate: float
    jitter: float
    slow: float = 1.0
    cool_frames: float = 90.0
    hot_frames: float = 45.0

    @property
    def mean_gap_s(self) -> float:
        """The stationary mean, in seconds."""
        cool, hot = self._stationary()
        return (cool + hot * self.slow) / self.rate

    def simulate(self, count: int, seed: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """The times of `count` frames in seconds, the first at 0, and which of them came while the device was hot."""
        generator = np.random.default_rng(seed)
        spells = 2 + int(2 * count / min(self.cool_frames, self.hot_frames))
        first = bool(generator.random() < self._stationary()[1])
        states = (np.arange(spells) % 2 == 1) ^ first
        lengths = generator.geometric(1 / np.where(states, self.hot_frames, self.cool_frames))
        hot = np.repeat(states, lengths)[:count]
        while len(hot) < count:  # the spells drawn were all short ones
            more = generator.geometric(1 / (self.cool_frames if hot[-1] else self.hot_frames))
            hot = np.concatenate([hot, np.full(more, not hot[-1])])[:count]
        gaps = np.where(hot, self.slow, 1.0) / self.rate * np.exp(self.jitter * generator.standard_normal(count) - self.jitter**2 / 2)
        return np.cumsum(gaps) - gaps[0], hot

    def log_likelihood(self, times: Floats) -> float:
        """Of the gaps between `times`, in seconds."""
        logs = np.log(np.diff(times))
        cool, hot = (self._log_density(logs, slow) for slow in (1.0, self.slow))
        peak = np.maximum(cool, hot)
        scale = float(peak.sum())
        warm, chill = 1 / self.cool_frames, 1 / self.hot_frames
        # To the next state, times the density of the gap in it: [from, to, gap].
        seen = np.stack([np.exp(cool - peak), np.exp(hot - peak)])
        products = np.array([[1 - warm, warm], [chill, 1 - chill]])[:, :, None] * seen[:, None]
        # Products are paired up, so that NumPy does each level at once.
        while products.shape[2] > 1:
            end = products.shape[2] // 2 * 2
            left, right = products[:, :, 0:end:2], products[:, :, 1:end:2]
            pairs = left[:, :1] * right[:1] + left[:, 1:] * right[1:]
            size = pairs.max(axis=(0, 1))
            scale += float(np.log(size).sum())
            products = np.concatenate([pairs / size, products[:, :, end:]], axis=2)
        return scale + math.log(float(np.array(self._stationary()) @ products[:, :, 0] @ np.ones(2)))

    def _stationary(self) -> tuple[float, float]:
        whole = self.cool_frames + self.hot_frames
        return self.cool_frames / whole, self.hot_frames / whole

    def _log_density(self, logs: Floats, slow: float) -> Floats:
        centre = math.log(slow / self.rate) - self.jitter**2 / 2
        density: Floats = -0.5 * ((logs - centre) / self.jitter) ** 2 - math.log(self.jitter * math.sqrt(2 * math.pi)) - logs
        return density
