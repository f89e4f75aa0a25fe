"""Requests against the model's signature: names, dtypes, shapes; symbols bind consistently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import InputError, suggest
from openinfer.ir.graph import ITEM_BYTES, Array, Signature, TensorType
from openinfer.runtime import conversion
from openinfer.runtime.conversion import Conversions


def check(inputs: Mapping[str, Any], signatures: Sequence[Signature], conversions: Conversions | None = None) -> dict[str, Any]:
    """The inputs in signature order, C-contiguous and of the model's dtypes: converted by `conversions`; without it, the arrays are used in
    place and one that would need a copy is an error.
    """
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
        arrays[signature.name] = _checked(inputs[signature.name], signature, symbols, conversions)
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


def _checked(value: Any, signature: Signature, symbols: dict[str, tuple[int, str]], conversions: Conversions | None) -> Any:
    name = signature.name
    if signature.shape is None and signature.dtype not in np.sctypeDict:
        return value
    if not isinstance(value, np.ndarray):
        if conversions is None or not isinstance(value, (list, tuple, float, int, np.generic)):
            raise InputError(f"input {name!r}: found {type(value).__name__}; allowed: a NumPy array of {describe(signature)}")
        value = _array(value, signature)
    array: Array = value
    if signature.dtype == "string" and array.dtype.kind not in "OUST":
        raise InputError(f"input {name!r}: found {array.dtype}; allowed: strings")
    if signature.shape is not None:
        _bind(array.shape, signature, symbols)
    if signature.dtype == "string":
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if array.dtype.name == signature.dtype and array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned:
        return array
    if array.dtype.kind not in "biuf" or signature.dtype not in ITEM_BYTES:
        raise InputError(f"input {name!r}: found {array.dtype.name}, allowed {describe(signature)}; give numbers")
    if conversions is None:
        raise InputError(
            f"input {name!r}: found {conversion.describe(array)}, allowed {signature.dtype} in place: pass "
            f"np.ascontiguousarray(array, {signature.dtype!r})"
        )
    batched = not signature.shape or isinstance(signature.shape[0], str)
    return conversions.fit(array, name, signature.dtype, batched)


def _array(value: Any, signature: Signature) -> Array:
    """Numbers or text outside an array, as one."""
    try:
        array: Array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(
            f"input {signature.name!r}: found a {type(value).__name__} that is no array: {reason}; allowed: {describe(signature)}"
        ) from None
    return array


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
