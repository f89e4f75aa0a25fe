"""Elementary functions in explicit steps, so that they vectorise, never depend on a vector library, and give the same bits in body and
tail.
"""

from __future__ import annotations

import math
from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_LLVM = {types.float32: (ir.FloatType(), ir.IntType(32), "f32"), types.float64: (ir.DoubleType(), ir.IntType(64), "f64")}


@intrinsic
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, _, suffix = _LLVM[signature.return_type]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.{suffix}")
        return builder.call(function, args)

    return a(a, a, a), emit


@intrinsic
def nearest(typing_context: Any, a: Any) -> Any:
    """The nearest integer, halves to even."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, _, suffix = _LLVM[signature.return_type]
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), f"llvm.rint.{suffix}")
        return builder.call(function, args)

    return a(a), emit


@intrinsic
def power_of_two(typing_context: Any, like: Any, exponent: Any) -> Any:
    """2 ** exponent for an integer-valued float exponent in the normal range, built from its bits."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind, integer, suffix = _LLVM[signature.return_type]
        bias, shift = (127, 23) if suffix == "f32" else (1023, 52)
        whole = builder.fptosi(args[1], integer)
        return builder.bitcast(builder.shl(builder.add(whole, ir.Constant(integer, bias)), ir.Constant(integer, shift)), kind)

    return like(like, like), emit


F32, F64 = np.float32, np.float64
_LOG2E, _LN2_HIGH, _LN2_LOW = F32(1.4426950408889634), F32(0.693359375), F32(-2.12194440e-4)
_C2, _C3, _C4, _C5, _C6, _C7 = (F32(c) for c in (0.5, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4))


@nb.njit(error_model="numpy", forceinline=True)
def exp32(x: Any) -> Any:
    """e ** x in float32; Cephes' polynomial on [-ln 2 / 2, ln 2 / 2], denormal results included."""
    bounded = max(min(x, F32(89.0)), F32(-104.0))
    n = nearest(bounded * _LOG2E)
    r = fma(-n, _LN2_HIGH, bounded)
    r = fma(-n, _LN2_LOW, r)
    p = fma(fma(fma(fma(fma(_C7, r, _C6), r, _C5), r, _C4), r, _C3), r, _C2)
    p = fma(p, r * r, r) + F32(1.0)
    half = nearest(n * F32(0.5))
    result = p * power_of_two(n, half) * power_of_two(n, n - half)
    return result if x == x else x


@nb.njit(error_model="numpy", forceinline=True)
def exp64(x: Any) -> Any:
    """e ** x in float64: Taylor's series to degree 13 on [-ln 2 / 2, ln 2 / 2]."""
    bounded = max(min(x, F64(710.0)), F64(-746.0))
    n = nearest(bounded * F64(1.4426950408889634))
    r = fma(-n, F64(6.93147180369123816490e-01), bounded)
    r = fma(-n, F64(1.90821492927058770002e-10), r)
    p = fma(F64(1.6059043836821613e-10), r, F64(2.08767569878681e-09))
    p = fma(p, r, F64(2.505210838544172e-08))
    p = fma(p, r, F64(2.755731922398589e-07))
    p = fma(p, r, F64(2.7557319223985893e-06))
    p = fma(p, r, F64(2.48015873015873e-05))
    p = fma(p, r, F64(1.984126984126984e-04))
    p = fma(p, r, F64(1.388888888888889e-03))
    p = fma(p, r, F64(8.333333333333333e-03))
    p = fma(p, r, F64(4.1666666666666664e-02))
    p = fma(p, r, F64(1.6666666666666666e-01))
    p = fma(p, r, F64(0.5))
    p = fma(p, r * r, r) + F64(1.0)
    half = nearest(n * F64(0.5))
    result = p * power_of_two(n, half) * power_of_two(n, n - half)
    return result if x == x else x


@nb.njit(error_model="numpy", forceinline=True)
def expm1_32(x: Any) -> Any:
    """e ** x - 1 in float32: `exp32`'s polynomial without the 1 near zero, where subtracting it would cancel the digits."""
    p = fma(fma(fma(fma(fma(_C7, x, _C6), x, _C5), x, _C4), x, _C3), x, _C2)
    small = fma(p, x * x, x)
    return small if abs(x) < F32(0.34) else exp32(x) - F32(1.0)


@nb.njit(error_model="numpy", forceinline=True)
def expm1_64(x: Any) -> Any:
    """e ** x - 1 in float64: Taylor's series to degree 13 near zero."""
    p = fma(F64(1.6059043836821613e-10), x, F64(2.08767569878681e-09))
    p = fma(p, x, F64(2.505210838544172e-08))
    p = fma(p, x, F64(2.755731922398589e-07))
    p = fma(p, x, F64(2.7557319223985893e-06))
    p = fma(p, x, F64(2.48015873015873e-05))
    p = fma(p, x, F64(1.984126984126984e-04))
    p = fma(p, x, F64(1.388888888888889e-03))
    p = fma(p, x, F64(8.333333333333333e-03))
    p = fma(p, x, F64(4.1666666666666664e-02))
    p = fma(p, x, F64(1.6666666666666666e-01))
    p = fma(p, x, F64(0.5))
    small = fma(p, x * x, x)
    return small if abs(x) < F64(0.34) else exp64(x) - F64(1.0)


EXP = {"float32": exp32, "float64": exp64}
EXPM1 = {"float32": expm1_32, "float64": expm1_64}


@nb.njit(error_model="numpy", forceinline=True)
def tanh32(x: Any) -> Any:
    """Hyperbolic tangent in float32: Cephes' polynomial below 0.625, by the exponential above."""
    z = x * x
    p = fma(fma(fma(F32(-5.70498872745e-3), z, F32(2.06390887954e-2)), z, F32(-5.37397155531e-2)), z, F32(1.33314422036e-1))
    small = fma(fma(p, z, F32(-3.33332819422e-1)) * z, x, x)
    size = abs(x)
    large = F32(1.0) - F32(2.0) / (exp32(size + size) + F32(1.0))
    signed = large if x > F32(0.0) else -large
    return small if size < F32(0.625) else (signed if x == x else x)


@nb.njit(error_model="numpy", forceinline=True)
def tanh64(x: Any) -> Any:
    """Hyperbolic tangent in float64, by libm."""
    return math.tanh(x)


@nb.njit(error_model="numpy", forceinline=True)
def sigmoid32(x: Any) -> Any:
    """1 / (1 + e ** -x) in float32."""
    return F32(1.0) / (F32(1.0) + exp32(-x))


@nb.njit(error_model="numpy", forceinline=True)
def sigmoid64(x: Any) -> Any:
    """1 / (1 + e ** -x) in float64."""
    return 1.0 / (1.0 + exp64(-x))


@nb.njit(error_model="numpy", forceinline=True)
def erf32(x: Any) -> Any:
    """Error function in float32: Eigen's rational approximation on [-4, 4], relative error below 4e-7."""
    bounded = max(min(x, F32(4.0)), F32(-4.0))
    z = bounded * bounded
    p = fma(F32(-2.72614225801306e-10), z, F32(2.77068142495902e-08))
    p = fma(p, z, F32(-2.10102402082508e-06))
    p = fma(p, z, F32(-5.69250639462346e-05))
    p = fma(p, z, F32(-7.34990630326855e-04))
    p = fma(p, z, F32(-2.95459980854025e-03))
    p = fma(p, z, F32(-1.60960333262415e-02))
    q = fma(F32(-1.45660718464996e-05), z, F32(-2.13374055278905e-04))
    q = fma(q, z, F32(-1.68282697438203e-03))
    q = fma(q, z, F32(-7.37332916720468e-03))
    q = fma(q, z, F32(-1.42647390514189e-02))
    result = max(min(bounded * p / q, F32(1.0)), F32(-1.0))
    return result if x == x else x


@nb.njit(error_model="numpy", forceinline=True)
def erf64(x: Any) -> Any:
    """Error function in float64, by libm."""
    return math.erf(x)


ERF = {"float32": erf32, "float64": erf64}
TANH = {"float32": tanh32, "float64": tanh64}
SIGMOID = {"float32": sigmoid32, "float64": sigmoid64}
