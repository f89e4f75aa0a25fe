"""Requests against the model's signature: names, dtypes, shapes; symbols bind consistently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import InputError, suggest
from openinfer.ir.graph import ITEM_BYTES, Array, Signature, TensorType


def check(inputs: Mapping[str, Any], signatures: Sequence[Signature], in_place: bool = False) -> dict[str, Any]:
    """The inputs in signature order, C-contiguous. With `in_place`, an array that would need a copy is an error."""
    if not isinstance(inputs, Mapping):
        raise InputError(
            f"found {type(inputs).__name__} as inputs; allowed: a mapping of {', '.join(s.name for s in signatures)} to arrays"
        )
    names = [signature.name for signature in signatures]
    for name in inputs:
        if name not in names:
            raise InputError(f"unknown input {name!r}; {suggest(str(name), names)}")
    arrays: dict[str, Any] = {}
    symbols: dict[str, tuple[int, str]] = {}
    for signature in signatures:
        if signature.name not in inputs:
            raise InputError(f"input {signature.name!r} is missing; expected {describe(signature)}")
        arrays[signature.name] = _checked(inputs[signature.name], signature, symbols, in_place)
    return arrays


def probes(signatures: Sequence[Signature], equal: bool = False) -> list[tuple[TensorType, ...]]:
    """Example input types to compile for: symbols bound to three sizes, every symbol to another one, or with `equal` all to the same;
    one example where nothing varies; none where a rank is unknown.
    """
    if any(signature.shape is None for signature in signatures):
        return []
    symbols = sorted({d for s in signatures for d in s.shape or () if isinstance(d, str)})
    bindings = [
        {name: base * (1 if equal else index + 1) for index, name in enumerate(symbols)} for base in ((1, 24, 120) if symbols else (1,))
    ]
    if len(symbols) > 1:
        bindings = bindings[1:]
    return [
        tuple(TensorType(s.dtype, tuple(binding[d] if isinstance(d, str) else d for d in s.shape or ())) for s in signatures)
        for binding in bindings
    ]


def example(signatures: Sequence[Signature], rng: np.random.Generator, batch: int) -> dict[str, Array]:
    """Random inputs that fit the signature, every symbol bound to `batch`: standard normal floats, small non-negative integers.

    Raises `InputError` for an input whose rank or type gives nothing to draw.
    """
    arrays: dict[str, Array] = {}
    for signature in signatures:
        if signature.shape is None or signature.dtype not in ITEM_BYTES:
            raise InputError(f"input {signature.name!r} of {describe(signature)} cannot be drawn at random; give a trace of real inputs")
        shape = tuple(batch if isinstance(d, str) else d for d in signature.shape)
        kind = np.dtype(signature.dtype).kind
        drawn = rng.standard_normal(shape) if kind == "f" else rng.integers(0, 2, shape)
        arrays[signature.name] = np.asarray(drawn).astype(signature.dtype)
    return arrays


def describe(signature: Signature) -> str:
    """`float32 [batch, 40]`."""
    return f"{signature.dtype} [{', '.join(str(d) for d in signature.shape)}]" if signature.shape is not None else signature.dtype


def _checked(value: Any, signature: Signature, symbols: dict[str, tuple[int, str]], in_place: bool) -> Any:
    name = signature.name
    if signature.shape is None and signature.dtype not in np.sctypeDict:
        return value
    if not isinstance(value, np.ndarray):
        if in_place or not isinstance(value, (list, tuple, float, int, np.generic)):
            raise InputError(f"input {name!r}: found {type(value).__name__}; allowed: a NumPy array of {describe(signature)}")
        value = _converted(value, signature)
    array: Array = value
    if signature.dtype == "string":
        if array.dtype.kind not in "OUST":
            raise InputError(f"input {name!r}: found {array.dtype}; allowed: strings")
    elif array.dtype.name != signature.dtype or not array.dtype.isnative:
        found = array.dtype.name if array.dtype.isnative else f"byte-swapped {array.dtype.name}"
        raise InputError(f"input {name!r}: found {found}, allowed {signature.dtype}; convert it with .astype({signature.dtype!r})")
    if signature.shape is not None:
        _bind(array.shape, signature, symbols)
    if not (array.flags.c_contiguous and array.flags.aligned):
        if in_place:
            raise InputError(
                f"input {name!r}: found strides {array.strides}; bind uses the array in place: pass np.ascontiguousarray of it"
            )
        array = np.require(array, requirements=["C", "A"])
    return array


def _converted(value: Any, signature: Signature) -> Array:
    """Numbers or text outside an array, as one of the signature's dtype. Floats may be rounded; anything else keeps its value."""
    try:
        array: Array = np.asarray(value)
        if signature.dtype == "string":
            return array
        wanted = np.dtype(signature.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"input {signature.name!r}: found a {type(value).__name__} that is no array: {reason}; allowed: {describe(signature)}"
        ) from None
    if not _keeps(array, wanted):
        found = f"{array.dtype} values in a {type(value).__name__}"
        raise InputError(f"input {signature.name!r}: found {found}, which {wanted} cannot hold; allowed: {describe(signature)}")
    return array.astype(wanted)


def _keeps(array: Array, wanted: np.dtype[Any]) -> bool:
    if array.size == 0 or array.dtype == wanted:
        return True
    if array.dtype.kind in "iu" and wanted.kind in "iu":
        limits = np.iinfo(wanted)
        return int(limits.min) <= int(array.min()) and int(array.max()) <= int(limits.max)
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, wanted, "same_kind"):
        return False
    if wanted.kind != "f":
        return True
    with np.errstate(over="ignore"):
        return bool((np.isfinite(array.astype(wanted)) | ~np.isfinite(array)).all())


def _bind(shape: tuple[int, ...], signature: Signature, symbols: dict[str, tuple[int, str]]) -> None:
    expected = signature.shape or ()
    if len(shape) != len(expected):
        raise InputError(f"input {signature.name!r}: found shape {shape}, allowed {describe(signature)}")
    for found, wanted in zip(shape, expected, strict=True):
        if isinstance(wanted, int):
            if found != wanted:
                raise InputError(f"input {signature.name!r}: found shape {shape}, allowed {describe(signature)}")
        elif symbols.setdefault(wanted, (found, signature.name))[0] != found:
            other, where = symbols[wanted]
            raise InputError(f"input {signature.name!r}: found {wanted} = {found}, but {wanted} = {other} in {where!r}; they must be equal")
