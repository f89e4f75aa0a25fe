"""Activations on explicit vectors, for the epilogues of recurrent kernels."""

from __future__ import annotations

from typing import Any

from openinfer.kernels.cpu.vectors import VectorType

# Cephes' polynomial of e ** r - 1 - r over r² for float32, Taylor's for float64, highest power first; ln 2 in two parts.
_EXP = {
    "float32": (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5),
    "float64": (
        1.6059043836821613e-10,
        2.08767569878681e-09,
        2.505210838544172e-08,
        2.755731922398589e-07,
        2.7557319223985893e-06,
        2.48015873015873e-05,
        1.984126984126984e-04,
        1.388888888888889e-03,
        8.333333333333333e-03,
        4.1666666666666664e-02,
        1.6666666666666666e-01,
        0.5,
    ),
}
_LN2 = {"float32": (0.693359375, -2.12194440e-4), "float64": (6.93147180369123816490e-01, 1.90821492927058770002e-10)}
_RANGE = {"float32": 87.0, "float64": 708.0}
# Rational minimax approximation of tanh in float32 (Eigen's): relative error below 3e-7 everywhere, ±1 to the last bit beyond the limit.
_TANH32_LIMIT = 7.90531110763549805
_TANH32 = (
    (
        -2.76076847742355e-16,
        2.00018790482477e-13,
        -8.60467152213735e-11,
        5.12229709037114e-08,
        1.48572235717979e-05,
        6.37261928875436e-04,
        4.89352455891786e-03,
    ),
    (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03),
)
# Cephes' tanh below 0.625 in float64, as x + x · x² · P(x²) / Q(x²).
_TANH64 = (
    (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3),
    (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3),
)
NAMES = ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softsign")


def apply(b: Any, v: VectorType, name: str, x: Any) -> Any:
    """Emit the activation `name`, one of `NAMES` with ONNX's default parameters."""
    one = v.constant(1.0)
    if name == "Sigmoid":
        return b.fdiv(one, b.fadd(one, exp(b, v, b.fneg(x))))
    if name == "Tanh":
        return tanh(b, v, x)
    if name == "Relu":
        return v.at_least(b, x, v.constant(0.0))
    if name == "HardSigmoid":
        return v.at_most(b, v.at_least(b, v.fma(b, x, v.constant(0.2), v.constant(0.5)), v.constant(0.0)), one)
    return b.fdiv(x, b.fadd(one, v.magnitude(b, x)))


def exp(b: Any, v: VectorType, x: Any) -> Any:
    """e ** x, arguments limited to ±87 (float32) or ±708 (float64), where one power of two holds the exponent."""
    limit = v.constant(_RANGE[v.dtype])
    bounded = v.at_least(b, v.at_most(b, x, limit), b.fneg(limit))
    n = v.nearest(b, b.fmul(bounded, v.constant(1.4426950408889634)))
    minus = b.fneg(n)
    r = v.fma(b, minus, v.constant(_LN2[v.dtype][0]), bounded)
    r = v.fma(b, minus, v.constant(_LN2[v.dtype][1]), r)
    p = v.fma(b, _horner(b, v, _EXP[v.dtype], r), b.fmul(r, r), r)
    result = b.fmul(b.fadd(p, v.constant(1.0)), v.two_to_the(b, n))
    return b.select(b.fcmp_ordered("ord", x, x), result, x)


def tanh(b: Any, v: VectorType, x: Any) -> Any:
    """Hyperbolic tangent; in float64 by the exponential above 0.625."""
    if v.dtype == "float32":
        limit = v.constant(_TANH32_LIMIT)
        bounded = v.at_least(b, v.at_most(b, x, limit), b.fneg(limit))
        square = b.fmul(bounded, bounded)
        numerator, denominator = (_horner(b, v, coefficients, square) for coefficients in _TANH32)
        return b.fdiv(b.fmul(bounded, numerator), denominator)
    size, square, one = v.magnitude(b, x), b.fmul(x, x), v.constant(1.0)
    numerator, denominator = (_horner(b, v, coefficients, square) for coefficients in _TANH64)
    small = v.fma(b, b.fmul(b.fdiv(numerator, denominator), square), x, x)
    away = b.fsub(one, b.fdiv(v.constant(2.0), b.fadd(exp(b, v, b.fadd(size, size)), one)))
    large = b.select(b.fcmp_ordered("<", x, v.constant(0.0)), b.fneg(away), away)
    return b.select(b.fcmp_ordered("<", size, v.constant(0.625)), small, large)


def _horner(b: Any, v: VectorType, coefficients: tuple[float, ...], x: Any) -> Any:
    total = v.constant(coefficients[0])
    for coefficient in coefficients[1:]:
        total = v.fma(b, total, x, v.constant(coefficient))
    return total
