"""What `OPENINFER_CHECKS=1` adds to leases: canaries on both sides, poison before and after use."""

from __future__ import annotations

import os

import numpy as np

from openinfer.errors import CanaryError, UseAfterReleaseError
from openinfer.ir.graph import Array

CANARY_BYTES = 128  # the alignment of what lies between stays what it was
CANARY, FRESH, RELEASED = 0xC5, 0xAB, 0xDB


def enabled() -> bool:
    """Whether the environment asks for the checks; read when a pool is made."""
    return os.environ.get("OPENINFER_CHECKS", "") not in ("", "0")


def arm(block: Array, margin: int, size_bytes: int) -> Array:
    """Write canaries and poison into a block; the lease's bytes."""
    block[:] = CANARY
    inside = block[margin : margin + size_bytes]
    inside[:] = FRESH
    return inside


def check_canaries(block: Array, margin: int, size_bytes: int, owner: str) -> None:
    """`CanaryError` where the bytes before or after a lease have been written to."""
    for side, start, stop in (("before", 0, margin), ("after", margin + size_bytes, len(block))):
        changed = np.flatnonzero(block[start:stop] != CANARY)
        if len(changed):
            at = margin - int(changed[-1]) if side == "before" else int(changed[0]) + 1
            raise CanaryError(
                f"lease of {size_bytes} bytes for {owner!r}: {len(changed)} bytes {side} it were written, the nearest {at} away"
            )


def poison(block: Array) -> None:
    """Mark a released block, so that later writes show."""
    block[:] = RELEASED


def check_poison(block: Array, owner: str) -> None:
    """`UseAfterReleaseError` where a released block has been written to since."""
    changed = np.flatnonzero(block != RELEASED)
    if len(changed):
        raise UseAfterReleaseError(
            f"memory released by {owner!r} was written to afterwards ({len(changed)} bytes, the first at {int(changed[0])}); "
            "keep the lease for as long as its array is in use"
        )
