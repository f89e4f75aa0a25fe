"""Sound to features: the logarithm of mel-band energies of overlapping windows, and cepstral coefficients made of them."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from scipy.fft import dct, rfft

Floats = npt.NDArray[np.float32]
FLOOR = 1e-6  # of a band's energy; below it is silence


@functools.cache
def mel_bands(rate: int, window: int, bands: int) -> Floats:
    """Triangular filters, [window // 2 + 1, bands], evenly spaced on the mel scale (2595 · log10(1 + f / 700)) from 20 Hz to rate / 2."""
    lowest, highest = (2595.0 * np.log10(1.0 + f / 700.0) for f in (20.0, rate / 2))
    edges = 700.0 * (10.0 ** (np.linspace(lowest, highest, bands + 2) / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(window, 1 / rate)[:, None]
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    filters: Floats = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))).astype(np.float32)
    return filters


def log_mel(sound: Floats, rate: int, window: int, step: int, frames: int, bands: int) -> Floats:
    """[n, frames, bands] of `sound` [n, samples] under a Hann window, from sample 0 on, `step` apart."""
    views = np.lib.stride_tricks.sliding_window_view(sound, window, axis=1)[:, : (frames - 1) * step + 1 : step]
    spectrum = rfft(views * np.hanning(window).astype(np.float32), axis=2)
    energy = spectrum.real**2 + spectrum.imag**2
    levels: Floats = np.log(energy @ mel_bands(rate, window, bands) + np.float32(FLOOR))
    return levels


def cepstra(levels: Floats, kept: int) -> Floats:
    """The first `kept` coefficients of the orthonormal cosine transform over the bands, [n, frames, kept]."""
    made: Floats = dct(levels, type=2, axis=2, norm="ortho")[:, :, :kept]
    return np.ascontiguousarray(made)
