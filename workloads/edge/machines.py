"""Sounds of a running machine, and of the same machine with one of three faults planted: a knock, a worn bearing, a slack belt.

A machine is a shaft whose harmonics follow a fixed envelope, and broadband noise; every recording has its own speed, load and distance. The
features are those of MLPerf Tiny: five windows of 128 mel bands.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from openinfer.workloads.edge.spectra import Floats, log_mel

RATE = 16_000
WINDOW, STEP, FRAMES, BANDS = 1024, 512, 5, 128
WIDTH = FRAMES * BANDS
SAMPLES = WINDOW + (FRAMES - 1) * STEP
HARMONICS = 12
FAULTS = ("knock", "bearing", "belt")
CHUNK = 256  # recordings made together
MEAN, SPREAD = 3.5, 2.5  # about those of the levels, so that the network sees values near 1


def recordings(count: int, anomalies: float, draw: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Features [count, 640], and 1 [count] where a fault was planted, with the share `anomalies`, else 0."""
    faulty = (draw.random(count) < anomalies).astype(np.int64)
    parts = []
    for at in range(0, count, CHUNK):
        levels = log_mel(_sound(faulty[at : at + CHUNK], draw), RATE, WINDOW, STEP, FRAMES, BANDS)
        parts.append((levels.reshape(len(levels), WIDTH) - np.float32(MEAN)) / np.float32(SPREAD))
    return np.concatenate(parts), faulty


def _sound(faulty: npt.NDArray[np.int64], draw: np.random.Generator) -> Floats:
    count = len(faulty)
    time = (np.arange(SAMPLES, dtype=np.float32) / np.float32(RATE))[None]
    speed, load = _column(draw.uniform(180.0, 260.0, count)), _column(draw.uniform(0.5, 1.0, count))
    fault = np.where(faulty == 1, draw.integers(0, len(FAULTS), count), -1)
    strength = _column(10 ** draw.uniform(-1.3, -0.4, count))
    belt = np.where((fault == 2)[:, None], strength, 0).astype(np.float32)
    turns = speed * time + _column(draw.random(count)) + belt * np.sin(np.float32(2 * np.pi) * 14 * time) * np.float32(0.6)
    sound = draw.standard_normal((count, SAMPLES), np.float32) * (np.float32(0.12) * load)
    for harmonic in range(1, HARMONICS + 1):
        height = np.float32(np.exp(-harmonic / 5) * (1 + 0.5 * np.cos(harmonic * 2.1))) * load
        cycles = harmonic * turns + _column(draw.random(count))
        sound += height * np.sin(np.float32(2 * np.pi) * (cycles - np.floor(cycles)))
    since = np.mod(time - _column(draw.random(count) * 0.06), np.float32(0.06))
    knock = np.exp(-since * 250) * np.sin(np.float32(2 * np.pi * 1900) * since)
    bearing = np.sin(np.float32(2 * np.pi) * np.mod(speed * np.float32(21.37) * time, 1)) * (1 + np.sin(np.float32(2 * np.pi) * turns))
    sound += np.where((fault == 0)[:, None], 4 * strength * knock, 0) + np.where((fault == 1)[:, None], strength * bearing / 2, 0)
    near: Floats = sound * _column(10 ** draw.uniform(-0.15, 0.15, count))
    return near


def _column(values: npt.NDArray[np.float64]) -> Floats:
    return values.astype(np.float32)[:, None]
