"""Requests that somebody made to break whoever answers them: numbers that no measurement gives, in otherwise ordinary rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from openinfer.workloads.security.packets import BENIGN

HOSTILE = 5  # label
SHARE = 0.01
VALUES = np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-42, -1e-45, -0.0], np.float32)  # denormals among them


def spoil(rows: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], generator: np.random.Generator) -> None:
    """Overwrite, in place, one to four values of about `SHARE` of the rows by one of `VALUES`, and label those `HOSTILE`."""
    for row in np.flatnonzero(generator.random(len(rows)) < SHARE):
        columns = generator.choice(rows.shape[1], generator.integers(1, 5), replace=False)
        rows[row, columns] = generator.choice(VALUES)
        labels[row] = HOSTILE


def alarms(score: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.bool_]:
    """Which scores raise an alarm. One that is not a number does: nobody passes by making the model answer NaN."""
    return ~(score <= threshold)


def detected(score: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], false_alarms: float) -> float:
    """The share of each attack that raises an alarm where that share of the benign does, and of these shares the mean."""
    threshold = float(np.quantile(score[labels == BENIGN], 1 - false_alarms))
    return float(np.mean([alarms(score[labels == kind], threshold).mean() for kind in np.unique(labels[labels != BENIGN])]))
