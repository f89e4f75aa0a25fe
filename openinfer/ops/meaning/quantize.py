"""Quantization to integers of 8 and 16 bits, and products of quantized matrices. Other element types run on the fallback."""

from __future__ import annotations

from typing import Any

import numpy as np

from openinfer.ops._base import NotCompiled, axis_of
from openinfer.ops.elementwise import ONNX_DTYPES
from openinfer.ops.meaning._base import Call, Meaning, Meanings

QUANTIZED = ("int8", "uint8", "int16", "uint16")


def _spread(call: Call, x: Any, given: Any) -> Any:
    """Scales or zero points so that they broadcast against `x`: one, one per slice of the axis, or one per block of it."""
    if given.ndim == 0 or (given.ndim == 1 and given.shape[0] == 1 and not call.attribute("block_size", 0)):
        return given.reshape(())
    axis = axis_of(call.attribute("axis", 1), x.ndim)
    if given.ndim == 1:
        return given.reshape(*[1] * axis, -1, *[1] * (x.ndim - axis - 1))
    block = int(call.attribute("block_size", 0))
    if not block or given.ndim != x.ndim:
        raise NotCompiled(f"scales of shape {given.shape} for {x.shape}")
    repeated = call.xp.repeat(given, block, axis)
    return repeated[(*[slice(None)] * axis, slice(0, x.shape[axis]))]


def _rounded(xp: Any, x: Any, scale: Any, zero: Any, dtype: str) -> Any:
    limits = np.iinfo(dtype)
    y = xp.rint(x / scale)
    y = y if zero is None else y + zero.astype(y.dtype)
    return xp.clip(y, y.dtype.type(limits.min), y.dtype.type(limits.max)).astype(dtype)


def _quantize(call: Call) -> list[Any]:
    """Half to even, then the zero point, then the limits of the integer."""
    x, scale, zero = call.array(0), call.array(1), call.optional(2)
    to = call.attribute("output_dtype", 0)
    dtype = zero.dtype.name if zero is not None else ONNX_DTYPES.get(to, "") if to else "uint8"
    if dtype not in QUANTIZED or call.attribute("precision", 0) or scale.dtype.kind != "f":
        raise NotCompiled(f"quantization to {dtype or to} by {scale.dtype}")
    x = x if x.dtype.kind == "f" else x.astype(scale.dtype)
    return [_rounded(call.xp, x, _spread(call, x, scale), None if zero is None else _spread(call, x, zero), dtype)]


def _dequantize(call: Call) -> list[Any]:
    x, scale, zero = call.array(0), call.array(1), call.optional(2)
    if x.dtype.name not in (*QUANTIZED, "int32") or scale.dtype.name not in ("float32", "float16") or call.attribute("output_dtype", 0):
        raise NotCompiled(f"{x.dtype} by {scale.dtype}")
    wide = x.astype("int32")
    wide = wide if zero is None else wide - _spread(call, x, zero).astype("int32")
    return [wide.astype(scale.dtype) * _spread(call, x, scale)]


def _dynamic(call: Call) -> list[Any]:
    """uint8 by the range of the input, in which 0 must lie."""
    xp, x = call.xp, call.array(0)
    if not x.size:
        raise NotCompiled("an empty input")
    low, high = xp.minimum(xp.min(x), x.dtype.type(0)), xp.maximum(xp.max(x), x.dtype.type(0))
    scale = (high - low) / x.dtype.type(255)
    safe = xp.where(scale == 0, xp.ones_like(scale), scale)
    zero = xp.rint(xp.clip(-low / safe, x.dtype.type(0), x.dtype.type(255))).astype("uint8")
    return [_rounded(xp, x, safe, zero, "uint8"), scale, zero]


def _matmul_integer(call: Call) -> list[Any]:
    """int32, of matrices less their zero points: one, one per row of A, one per column of B."""
    a, b, a_zero, b_zero = call.array(0).astype("int32"), call.array(1).astype("int32"), call.optional(2), call.optional(3)
    if a_zero is not None:
        a = a - (a_zero.reshape(-1, 1) if a_zero.ndim == 1 and a_zero.shape[0] > 1 else a_zero).astype("int32")
    return [call.xp.asarray(call.xp.matmul(a, b if b_zero is None else b - b_zero.astype("int32")))]


MEANINGS: Meanings = {
    ("", "QuantizeLinear"): Meaning(_quantize),
    ("", "DequantizeLinear"): Meaning(_dequantize),
    ("", "DynamicQuantizeLinear"): Meaning(_dynamic),
    ("", "MatMulInteger"): Meaning(_matmul_integer),
}
