"""One-second clips that may hold a word: three glides with an overtone, in noise. Ten keywords, other words, and none.

A word is a sequence of three glides, each from one pitch to another. Speakers differ in pitch and pace; clips in when the word begins, in
loudness and in noise. Other words are drawn from the same glides, never a keyword's sequence.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from openinfer.workloads.edge.spectra import Floats, cepstra, log_mel

KEYWORDS = 10
UNKNOWN, SILENCE = 10, 11
CLASSES = 12
RATE, SAMPLES = 8_000, 8_000
FRAMES, COEFFICIENTS = 49, 10  # windows of 30 ms every 20 ms
WINDOW, STEP, BANDS = 240, 160, 40
GLIDES, LONGEST_S = 3, 0.22
PITCHES = np.array([350.0, 550.0, 850.0, 1300.0])
CHUNK = 256  # clips made together
MEAN, SPREAD = -6.0, 8.0  # about those of the coefficients, so that the network sees values near 1


@functools.cache
def vocabulary() -> npt.NDArray[np.int64]:
    """[KEYWORDS, GLIDES, 2]: from which pitch to which. Two keywords share two of three glides, or fewer."""
    draw = np.random.default_rng(2024)
    words: list[npt.NDArray[np.int64]] = []
    while len(words) < KEYWORDS:
        word = draw.integers(0, len(PITCHES), (GLIDES, 2))
        if all((word != other).any(axis=1).sum() >= 1 for other in words):
            words.append(word)
    return np.stack(words)


def clips(count: int, draw: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Features [count, 1, 49, 10] and classes [count]: a keyword's number, UNKNOWN or SILENCE, each equally likely."""
    labels = draw.integers(0, CLASSES, count)
    parts = [features(sounds(labels[at : at + CHUNK], draw)) for at in range(0, count, CHUNK)]
    return np.concatenate(parts), labels


def features(sound: Floats) -> Floats:
    """[n, 1, 49, 10] of clips [n, SAMPLES]."""
    made = cepstra(log_mel(sound, RATE, WINDOW, STEP, FRAMES, BANDS), COEFFICIENTS)
    made[:, :, 0] -= np.float32(MEAN)
    return (made / np.float32(SPREAD))[:, None]


def sounds(labels: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    """Clips [n, SAMPLES] at RATE."""
    count = len(labels)
    words = _words(labels, draw)
    speaker, length = np.exp(draw.normal(0.0, 0.06, count)), draw.uniform(0.14, LONGEST_S, (count, GLIDES))
    begin = draw.uniform(0.05, 0.95 - length.sum(axis=1))
    loud = np.where(labels == SILENCE, 0.0, 10 ** draw.uniform(-1.3, 0.0, count))
    sound = draw.standard_normal((count, SAMPLES), np.float32) * _column(0.3 * 10 ** draw.uniform(-1.0, 0.0, count))
    time = (np.arange(round(LONGEST_S * RATE), dtype=np.float32) / np.float32(RATE))[None]
    for glide in range(GLIDES):
        pitch = PITCHES[words[:, glide]] * speaker[:, None]
        part = np.minimum(time / _column(length[:, glide]), 1)
        cycles = _column(length[:, glide]) * (_column(pitch[:, 0]) * part + _column((pitch[:, 1] - pitch[:, 0]) / 2) * part**2)
        angle = np.float32(2 * np.pi) * (cycles - np.floor(cycles))
        # The overtone: sin 2a = 2 sin a cos a.
        voice = _column(4 * loud) * part * (1 - part) * np.sin(angle) * (1 + np.cos(angle))
        for clip, spoken, at in zip(sound, voice, np.round(begin * RATE).astype(np.int64).tolist(), strict=True):
            place = clip[at : at + len(spoken)]
            place += spoken[: len(place)]
        begin = begin + length[:, glide]
    return sound


def _words(labels: npt.NDArray[np.int64], draw: np.random.Generator) -> npt.NDArray[np.int64]:
    """[n, GLIDES, 2]: the keyword, or a word that is none; for silent clips any."""
    words = draw.integers(0, len(PITCHES), (len(labels), GLIDES, 2))
    while True:
        taken = (words[:, None] == vocabulary()[None]).all(axis=(2, 3)).any(axis=1)
        if not taken.any():
            break
        words[taken] = draw.integers(0, len(PITCHES), (int(taken.sum()), GLIDES, 2))
    spoken = labels < KEYWORDS
    words[spoken] = vocabulary()[labels[spoken]]
    return words


def _column(values: npt.NDArray[np.float64]) -> Floats:
    return values.astype(np.float32)[:, None]
