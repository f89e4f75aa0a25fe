"""Instruments and the record they write; read by the report, the notebook and the tuner."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(path: str | Path) -> Any:
    """The rows of a profile as a pandas frame, its header in `.attrs["profile"]`. A folder: all of its profiles, merged across processes.

    Columns: process, instrument, name, key, at_ns, value, unit. Raises `StudyError` where there is none, or of another schema.
    """
    from openinfer.profiles.profile_record import ProfileRecord

    return ProfileRecord.load(Path(path)).frame()
