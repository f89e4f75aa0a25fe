"""What the windowed model of `hft` reads: the newest ticks before an event, one window an event, each one tick after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from openinfer.workloads.hft.market import Session, features

FEATURE_TICKS = 50

Floats = npt.NDArray[np.float32]


def feature_windows(day: Session, last: npt.NDArray[np.int64]) -> Floats:
    """[n, 50, 40]: the features of 50 ticks that end with event `last`."""
    return np.ascontiguousarray(features(day)[last[:, None] + np.arange(1 - FEATURE_TICKS, 1)])
