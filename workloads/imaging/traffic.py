"""The requests of `imaging`: one slice each, never the same one twice; the label says whether it shows a lesion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from openinfer.workloads.imaging.phantom import slices
from openinfer.workloads.imaging.reading import Reading
from openinfer.workloads.trace import Trace, npz_bytes

from openinfer.config import write_atomically
from openinfer.errors import WorkloadError, suggest

CHUNK = 64  # slices reconstructed together

REGIMES = {"list": Reading(4e-3, 4.0, 0.0), "emergency": Reading(4e-3, 4.0, 60.0)}


def generate(name: str, requests: int, seed: int) -> Trace:
    """A trace of `requests` slices [1, 128, 128] of one regime (`list`, `emergency`)."""
    if name not in REGIMES:
        raise WorkloadError(f"unknown regime {name!r}; {suggest(name, REGIMES)}")
    images = np.empty((requests, 1, 128, 128), np.float32)
    labels = np.empty(requests, np.int64)
    for first in range(0, requests, CHUNK):
        for offset, one in enumerate(slices(seed, first, min(CHUNK, requests - first))):
            images[first + offset, 0], labels[first + offset] = one.image, bool(one.lesions)
    times, _ = REGIMES[name].simulate(requests, seed)
    return Trace({"image": images}, times - times[0], labels)


def export_raw(folder: Path, name: str, regime: str, requests: int, seed: int) -> list[Path]:
    """The truth behind a trace: `mask` [requests, 128, 128] of the lesions, and which requests are emergencies."""
    masks = [one.mask for first in range(0, requests, CHUNK) for one in slices(seed, first, min(CHUNK, requests - first))]
    path = folder / f"{name}_truth.npz"
    write_atomically(path, npz_bytes({"mask": np.stack(masks), "emergency": REGIMES[regime].simulate(requests, seed)[1]}))
    return [path]
