"""CT-like slices made of ellipses, whose line integrals are known in closed form: projected, counted by Poisson statistics, then
reconstructed by filtered back projection. Where the lesions are is known by construction.

The field of view is the square [-1, 1]². Attenuation is relative to water; a unit of length attenuates by `WATER`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SIZE = 128  # pixels a side
ANGLES, DETECTORS = 144, 185
PHOTONS = 6e4  # a detector element counts without a patient
WATER = 2.6
LESION_SHARE = 0.5  # of the slices
MOST_LESIONS = 3

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """Centre, half axes and counter-clockwise angle in radians; `value` is added to the attenuation inside."""

    x: float
    y: float
    a: float
    b: float
    angle: float
    value: float

    def inside(self, x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
        """Which points lie inside."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        u, v = (x - self.x) * c + (y - self.y) * s, (y - self.y) * c - (x - self.x) * s
        return np.asarray((u / self.a) ** 2 + (v / self.b) ** 2 <= 1.0)

    def line_integrals(self) -> Floats:
        """[ANGLES, DETECTORS]: along x·cos θ + y·sin θ = s (Kak & Slaney 1988, equation 3.9)."""
        theta = np.arange(ANGLES)[:, None] * (np.pi / ANGLES)
        offset = detector_positions()[None, :] - (self.x * np.cos(theta) + self.y * np.sin(theta))
        reach = (self.a * np.cos(theta - self.angle)) ** 2 + (self.b * np.sin(theta - self.angle)) ** 2
        return np.asarray(2 * self.value * self.a * self.b * np.sqrt(np.maximum(reach - offset**2, 0.0)) / reach)


@dataclasses.dataclass(frozen=True)
class Slice:
    """One reading: `image` [SIZE, SIZE], attenuation relative to water as reconstructed; `mask` of the lesions; the lesions."""

    image: Image
    mask: npt.NDArray[np.bool_]
    lesions: tuple[Ellipse, ...]


def detector_positions() -> Floats:
    """[DETECTORS] on [-√2, √2]: every ray through the field of view is counted."""
    return np.linspace(-np.sqrt(2.0), np.sqrt(2.0), DETECTORS)


def pixel_centres() -> tuple[Floats, Floats]:
    """x and y, each [SIZE, SIZE]; the first row is at the top."""
    along = (np.arange(SIZE) + 0.5) * (2.0 / SIZE) - 1.0
    return np.broadcast_to(along, (SIZE, SIZE)), np.broadcast_to(-along[:, None], (SIZE, SIZE))


def slices(seed: int, first: int, count: int) -> list[Slice]:
    """Slices first … first + count - 1 of a seed; each depends on the seed and its index alone."""
    generators = [np.random.default_rng((seed, index)) for index in range(first, first + count)]
    drawn = [_draw(generator) for generator in generators]
    projections = [sum((e.line_integrals() for e in (*body, *lesions)), np.zeros((ANGLES, DETECTORS))) for body, lesions in drawn]
    counted = [_count(projection, generator) for projection, generator in zip(projections, generators, strict=True)]
    images = reconstruct(np.stack(counted))
    return [Slice(image, mask_of(lesions), lesions) for image, (_, lesions) in zip(images, drawn, strict=True)]


def mask_of(lesions: Sequence[Ellipse]) -> npt.NDArray[np.bool_]:
    """[SIZE, SIZE]: pixels whose centre lies in a lesion."""
    x, y = pixel_centres()
    mask: npt.NDArray[np.bool_] = np.logical_or.reduce([np.zeros((SIZE, SIZE), bool), *(lesion.inside(x, y) for lesion in lesions)])
    return mask


def reconstruct(line_integrals: Floats) -> Image:
    """[n, SIZE, SIZE] of [n, ANGLES, DETECTORS]: the band-limited ramp of Ramachandran & Lakshminarayanan (1971), then back projection with
    linear interpolation.
    """
    padded = 512
    filtered = np.fft.irfft(np.fft.rfft(line_integrals, padded, axis=2) * _ramp(padded), padded, axis=2)[:, :, :DETECTORS]
    flat = np.ascontiguousarray(filtered.reshape(len(line_integrals), -1).T.astype(np.float32))
    return np.ascontiguousarray((_back_projection() @ flat).T.reshape(-1, SIZE, SIZE))


def _count(line_integrals: Floats, generator: np.random.Generator) -> Floats:
    """The line integrals as measured: photons counted behind the patient, at least one."""
    photons = np.maximum(generator.poisson(PHOTONS * np.exp(-WATER * line_integrals)), 1)
    return np.asarray(np.log(PHOTONS / photons) / WATER)


def _draw(generator: np.random.Generator) -> tuple[list[Ellipse], tuple[Ellipse, ...]]:
    """A body with organs, and its lesions."""
    g = generator
    tilt = g.normal(0, 0.06)
    body = [Ellipse(g.normal(0, 0.02), g.normal(0, 0.02), g.uniform(0.72, 0.86), g.uniform(0.56, 0.68), tilt, 1.0)]
    for side in (-1, 1):
        body.append(
            Ellipse(
                side * g.uniform(0.34, 0.40), g.normal(0.05, 0.03), g.uniform(0.22, 0.29), g.uniform(0.30, 0.40), g.normal(0, 0.15), -0.72
            )
        )
    body.append(
        Ellipse(g.normal(0.06, 0.03), g.normal(0.10, 0.03), g.uniform(0.13, 0.18), g.uniform(0.15, 0.20), g.uniform(0, np.pi), 0.05)
    )
    body.append(Ellipse(g.normal(0, 0.02), g.uniform(-0.44, -0.38), g.uniform(0.08, 0.11), g.uniform(0.07, 0.09), g.normal(0, 0.2), 0.55))
    for _ in range(int(g.poisson(9))):
        side = g.choice([-1, 1])  # vessels in the lungs: thin, and brighter than a lesion
        thickness = g.uniform(0.010, 0.020)
        body.append(
            Ellipse(
                side * g.normal(0.37, 0.09),
                g.normal(0.05, 0.12),
                thickness * g.uniform(1, 5),
                thickness,
                g.uniform(0, np.pi),
                g.uniform(0.4, 0.7),
            )
        )
    lesions = []
    if g.random() < LESION_SHARE:
        for _ in range(int(g.integers(1, MOST_LESIONS + 1))):
            lesions.append(_lesion(g, body))
    return body, tuple(lesions)


def _lesion(generator: np.random.Generator, body: Sequence[Ellipse]) -> Ellipse:
    """A round-ish growth well inside a lung, fainter than a vessel and wider."""
    lung = body[int(generator.integers(1, 3))]
    radius, turn = 0.70 * np.sqrt(generator.random()), generator.uniform(0, 2 * np.pi)
    u, v = lung.a * radius * np.cos(turn), lung.b * radius * np.sin(turn)
    c, s = np.cos(lung.angle), np.sin(lung.angle)
    size = generator.uniform(0.035, 0.085)
    return Ellipse(
        lung.x + u * c - v * s,
        lung.y + u * s + v * c,
        size,
        size * generator.uniform(0.65, 1.0),
        generator.uniform(0, np.pi),
        generator.uniform(0.18, 0.5),
    )


@functools.cache
def _ramp(padded: int) -> Floats:
    """The filter's frequency response, from its impulse response so that the mean comes out right (Kak & Slaney, equation 3.61)."""
    spacing = detector_positions()[1] - detector_positions()[0]
    index = np.fft.fftfreq(padded, 1 / padded)
    odd = index.astype(np.int64) % 2 != 0
    impulse = np.where(odd, -1.0 / (np.pi * np.where(odd, index, 1.0) * spacing) ** 2, 0.0)
    impulse[0] = 1.0 / (4 * spacing**2)
    return np.asarray(np.fft.rfft(impulse).real * spacing * np.pi / ANGLES)


@functools.cache
def _back_projection() -> Any:
    """A sparse matrix [SIZE², ANGLES · DETECTORS] in float32: every pixel takes two neighbouring detector elements from every angle."""
    from scipy.sparse import csr_matrix

    x, y = (centres.reshape(-1, 1) for centres in pixel_centres())
    theta = np.arange(ANGLES)[None, :] * (np.pi / ANGLES)
    positions = detector_positions()
    where = (x * np.cos(theta) + y * np.sin(theta) - positions[0]) / (positions[1] - positions[0])
    left = np.minimum(where.astype(np.int32), DETECTORS - 2)
    share = where - left
    columns = left + np.arange(ANGLES, dtype=np.int32)[None, :] * DETECTORS
    indices = np.stack([columns, columns + 1], axis=2).reshape(-1)
    weights = np.stack([1.0 - share, share], axis=2).reshape(-1).astype(np.float32)
    starts = np.arange(SIZE * SIZE + 1, dtype=np.int32) * (2 * ANGLES)
    return csr_matrix((weights, indices, starts), shape=(SIZE * SIZE, ANGLES * DETECTORS))
