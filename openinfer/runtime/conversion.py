"""Arrays of another dtype, byte order or layout than the model takes: converted once, measured, refused where too much would be lost.

    byte order, strides     every value is kept
    integers, booleans      only where every value is kept
    float to a narrower     error = max |rounded - given| ÷ spread, per feature (last axis), over the requests of the call; where the
                            only axis counts requests, they have one feature

The spread (largest less smallest value) is what a model can learn from: 1.6e9 + 0.5 rounds by 3e-8 of itself to float32, and by everything
that tells one time stamp from the next. Where a call holds one request, or a feature that does not vary, the error is measured against its
magnitude.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from openinfer.errors import InputError, PrecisionError
from openinfer.fork_lock import ForkLock
from openinfer.ir.graph import Array


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What came for one input in one form: `found`, the dtype that the model takes, how many arrays, and the largest `error` of a call."""

    input: str
    found: str
    taken: str
    arrays: int
    error: float


class Conversions:
    """Converts within a tolerance and keeps count. Safe to use from several threads."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._found: dict[tuple[str, str], Conversion] = {}
        self._lock = ForkLock()

    def all(self) -> tuple[Conversion, ...]:
        """Every kind of conversion so far, in the order of its first array."""
        with self._lock.held():
            return tuple(self._found.values())

    def fit(self, array: Array, name: str, dtype: str, batched: bool = True) -> Array:
        """A C-contiguous array of `dtype` with the values of `array`; `batched` tells whether its first axis counts requests.

        Raises `InputError` where `dtype` cannot hold them, `PrecisionError` where rounding takes more than the tolerance.
        """
        wanted, native = np.dtype(dtype), array.dtype.newbyteorder("=")
        found, error = describe(array), 0.0
        if not np.can_cast(native, wanted, "safe") or (native.kind in "iu" and wanted.kind == "f"):
            error = loss(array, wanted, batched) if native.kind == wanted.kind == "f" else 0.0
            if error == np.inf or not _convertible(array, native, wanted):
                raise InputError(f"input {name!r}: found {found}, allowed: {wanted}; {_why_not(native, wanted)}")
            if error > self._tolerance:
                raise PrecisionError(
                    f"input {name!r}: found {found} that {wanted} would round by {error:.1e} of a feature's spread, allowed "
                    f"{self._tolerance:.0e}; subtract the offset first, use a {native} model, or raise engine.conversion_tolerance"
                )
        converted = np.require(array, wanted, ["C", "A"])
        with self._lock.held():
            before = self._found.get((name, found), Conversion(name, found, wanted.name, 0, 0.0))
            self._found[name, found] = dataclasses.replace(before, arrays=before.arrays + 1, error=max(before.error, error))
        return converted


def describe(array: Array) -> str:
    """`byte-swapped float64 with strides`."""
    order = "" if array.dtype.isnative else "byte-swapped "
    layout = "" if array.flags.c_contiguous and array.flags.aligned else " with strides"
    return f"{order}{array.dtype.newbyteorder('=').name}{layout}"


def loss(array: Array, wanted: np.dtype[Any], batched: bool = True) -> float:
    """What rounding to a narrower float takes, as the module says; infinite where a finite value overflows."""
    if array.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        exact = np.asarray(array, array.dtype.newbyteorder("="))
        features = exact.shape[-1] if exact.ndim > 1 else 1 if batched else exact.size
        rows = exact.reshape(-1, features)
        finite = np.isfinite(rows)
        rounded = rows.astype(wanted).astype(rows.dtype)
        error = np.where(finite, np.abs(rounded - rows), 0).max(axis=0)
        high, low = np.where(finite, rows, -np.inf).max(axis=0), np.where(finite, rows, np.inf).min(axis=0)
        scale = np.where(high > low, high - low, np.maximum(np.abs(high), np.abs(low)))
        share = np.where(error > 0, error / scale, 0)
    return float(np.nan_to_num(share, nan=np.inf, posinf=np.inf).max())


def _why_not(native: np.dtype[Any], wanted: np.dtype[Any]) -> str:
    if native.kind in "biuf" and wanted.kind in "biuf" and native.kind != wanted.kind and wanted.kind != "f":
        return f"{native} is not taken for {wanted}: cast it where that is meant"
    return f"a value is beyond what {wanted} holds: scale it, or use a model of {native}"


def _convertible(array: Array, native: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether every value has its like in `wanted`; of floats, whether that is a float at all."""
    if array.size == 0:
        return True
    if native.kind not in "iu" or wanted.kind not in "iuf":
        return bool(native.kind == wanted.kind)
    low, high = int(array.min()), int(array.max())
    if wanted.kind == "f":
        exact = 1 << (int(np.finfo(wanted).nmant) + 1)  # beyond it, a float skips integers
        return -exact <= low and high <= exact
    limits = np.iinfo(wanted)
    return int(limits.min) <= low and high <= int(limits.max)
