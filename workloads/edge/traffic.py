"""The requests of `edge`: a hub hears sixteen microphones in turn and asks which word a second of sound holds. For the other model
recordings of a machine, on the same clock.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from openinfer.workloads.edge import machines
from openinfer.workloads.edge.frames import Frames
from openinfer.workloads.edge.words import CLASSES, RATE, clips, sounds
from openinfer.workloads.trace import Trace

REGIMES = {
    "steady": Frames(rate=500.0, jitter=0.05),
    # Throttled, the sensors deliver at 2/3 of their rate. Spells of a fraction of a second stand for minutes.
    "thermal": Frames(rate=500.0, jitter=0.05, slow=1.5),
}


def generate(name: str, requests: int, seed: int) -> Trace:
    """A trace of `requests` clips of one regime (`steady`, `thermal`). Labels are the classes."""
    times, _ = REGIMES[name].simulate(requests, seed)
    heard, labels = clips(requests, np.random.default_rng((seed, 1)))
    return Trace({"x": heard}, times, labels)


def generate_recordings(name: str, requests: int, seed: int) -> Trace:
    """A trace for `autoencoder`: a machine's sounds, a tenth of them with a fault. Labels are 1 where there is one."""
    heard, faulty = machines.recordings(requests, 0.1, np.random.default_rng((seed, 2)))
    return Trace({"x": heard}, REGIMES[name].simulate(requests, seed)[0], faulty)


OTHERS = {"autoencoder": generate_recordings}


def export_raw(folder: Path, name: str, regime_name: str, requests: int, seed: int) -> list[Path]:
    """The first clips behind a trace as sound: at most 20 WAV files, mono, 16 bits, at 8 kHz; their class in the name."""
    import wave

    draw = np.random.default_rng((seed, 1))
    labels = draw.integers(0, CLASSES, requests)
    written = []
    for index, sound in enumerate(sounds(labels[:256], draw)[:20]):
        path = folder / f"{name}_{index:02d}_class{labels[index]}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((np.clip(sound / 4, -1, 1) * 32767).astype("<i2").tobytes())
        written.append(path)
    return written
