"""Elementwise expressions over broadcast operands, one generated loop nest per expression and broadcast pattern.

    def kernel(a0, a1, out, n, d0, s0_0, s1_0, low, high):      # operands, output, inner length, outer sizes, outer strides
        for row in range(low, high):
            i0 = row
            b0 = i0 * s0_0
            b1 = i0 * s1_0
            for i in range(n):
                q[row * n + i] = T(p0[b0 + i] + p1[b1])         # an operand that is broadcast along the inner dimension is read once

Without outer dimensions a block is `CHUNK` elements of the flat tensor.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba as nb
import numpy as np

from openinfer.kernels.cpu.pointers import NUMBA_TYPES, POINTERS
from openinfer.kernels.cpu.vector_math import ERF, EXP, EXPM1, SIGMOID, TANH
from openinfer.ops.elementwise import CHUNK

# Operator → Python source over its arguments {0}, {1}, …; T is the arithmetic type.
TEMPLATES = {
    "Add": "({0} + {1})",
    "Sub": "({0} - {1})",
    "Mul": "({0} * {1})",
    "Neg": "(-{0})",
    "DivFloat": "({0} / {1})",
    "DivInt": "quotient({0}, {1})",
    "ModInt": "remainder({0}, {1})",
    "Fmod": "np.fmod({0}, {1})",
    "Floored": "floored({0}, {1})",
    "Whole": "whole({0})",
    "WholeUnsigned": "whole_unsigned({0})",
    "ShiftLeft": "(({0} << {1}) if {1} < T(64) else T(0))",
    "ShiftRight": "(({0} >> {1}) if {1} < T(64) else T(0))",
    "Shrink": "({0} + T({bias}) if {0} < -T({lambd}) else ({0} - T({bias}) if {0} > T({lambd}) else T(0)))",
    "Abs": "abs({0})",
    "Sqrt": "math.sqrt({0})",
    "Exp": "exp({0})",
    "Log": "math.log({0})",
    "Reciprocal": "(T(1) / {0})",
    "Floor": "math.floor({0})",
    "Ceil": "math.ceil({0})",
    "Round": "rint({0})",
    "Sign": "(T(1) if {0} > T(0) else (T(-1) if {0} < T(0) else {0}))",
    "Erf": "erf({0})",
    "Relu": "(T(0) if {0} < T(0) else {0})",
    "LeakyRelu": "(T({alpha}) * {0} if {0} < T(0) else {0})",
    "PRelu": "({1} * {0} if {0} < T(0) else {0})",
    "Elu": "(T({alpha}) * expm1({0}) if {0} < T(0) else {0})",
    "Selu": "(T({gamma}) * ({0} if {0} > T(0) else T({alpha}) * expm1({0})))",
    "Celu": "({0} if {0} > T(0) else T({alpha}) * expm1({0} / T({alpha})))",
    "ThresholdedRelu": "({0} if {0} > T({alpha}) else T(0))",
    "Sigmoid": "sigmoid({0})",
    "HardSigmoid": "clip({0} * T({alpha}) + T({beta}), T(0), T(1))",
    "HardSwish": "({0} * clip({0} * T(1 / 6) + T(0.5), T(0), T(1)))",
    "Tanh": "tanh({0})",
    "Softplus": "(larger({0}, T(0)) + T(math.log1p(exp(-abs({0})))))",
    "Softsign": "({0} / (T(1) + abs({0})))",
    "Swish": "({0} * sigmoid(T({alpha}) * {0}))",
    "GeluErf": "(T(0.5) * {0} * (T(1) + erf({0} * T(0.7071067811865476))))",
    "GeluTanh": "(T(0.5) * {0} * (T(1) + tanh(T(0.7978845608028654) * ({0} + T(0.044715) * {0} * {0} * {0}))))",
    "Clip": "clip({0}, {1}, {2})",
    "Min": "smaller({0}, {1})",
    "Max": "larger({0}, {1})",
    "Scale": "({0} * T({alpha}))",
    "Number": "T({value})",
    "And": "({0} & {1})",
    "Or": "({0} | {1})",
    "Xor": "({0} ^ {1})",
    "Not": "({0} ^ 1)",
    "BitwiseAnd": "({0} & {1})",
    "BitwiseOr": "({0} | {1})",
    "BitwiseXor": "({0} ^ {1})",
    "BitwiseNot": "(~{0})",
    "Equal": "({0} == {1})",
    "Less": "({0} < {1})",
    "Greater": "({0} > {1})",
    "LessOrEqual": "({0} <= {1})",
    "GreaterOrEqual": "({0} >= {1})",
    "Where": "({1} if {0} != 0 else {2})",
    "Cast": "{0}",
    "CastBool": "({0} != 0)",
    "IsNaN": "({0} != {0})",
    "IsInf": "(({0} == T(np.inf) and {positive}) or ({0} == T(-np.inf) and {negative}))",
    "Pow": "power({0}, {1})",
    **{
        name: f"math.{function}({{0}})"
        for name, function in {
            "Sin": "sin",
            "Cos": "cos",
            "Tan": "tan",
            "Asin": "asin",
            "Acos": "acos",
            "Atan": "atan",
            "Sinh": "sinh",
            "Cosh": "cosh",
            "Asinh": "asinh",
            "Acosh": "acosh",
            "Atanh": "atanh",
        }.items()
    },
}


@nb.njit(error_model="numpy", forceinline=True)
def quotient(a: Any, b: Any) -> Any:
    """Integer division that truncates; 0 where the divisor is 0."""
    if b == 0:
        return a - a
    if b == -1:
        return -a
    floor = a // b
    return floor + 1 if floor < 0 and floor * b != a else floor


@nb.njit(error_model="numpy", forceinline=True)
def remainder(a: Any, b: Any) -> Any:
    """Integer remainder with the divisor's sign; 0 where the divisor is 0."""
    if b == 0 or b == -1:
        return a - a
    return a % b


@nb.njit(error_model="numpy", forceinline=True)
def unsigned_quotient(a: Any, b: Any) -> Any:
    """`quotient` of unsigned integers. A signed constant beside uint64 would turn both into float64."""
    zero = a - a
    return a // b if b != zero else zero


@nb.njit(error_model="numpy", forceinline=True)
def unsigned_remainder(a: Any, b: Any) -> Any:
    """`remainder` of unsigned integers."""
    zero = a - a
    return a % b if b != zero else zero


@nb.njit(error_model="numpy", forceinline=True)
def floored(a: Any, b: Any) -> Any:
    """Floating-point remainder with the divisor's sign."""
    rest = np.fmod(a, b)
    return rest + b if rest != 0 and (rest < 0) != (b < 0) else rest


@nb.njit(error_model="numpy", forceinline=True)
def whole(a: Any) -> Any:
    """Towards zero as int64, of which a narrower type keeps the low bits; the smallest int64 for NaN and what lies beyond."""
    return nb.int64(a) if a >= -9223372036854775808.0 and a < 9223372036854775808.0 else nb.int64(-9223372036854775808)


@nb.njit(error_model="numpy", forceinline=True)
def whole_unsigned(a: Any) -> Any:
    """Towards zero as uint64; negative numbers wrap, NaN and what lies beyond give 2 ** 63."""
    if a >= 9223372036854775808.0 and a < 18446744073709551616.0:
        return nb.uint64(nb.int64(a - 9223372036854775808.0)) + nb.uint64(9223372036854775808)
    return nb.uint64(whole(a))


@nb.njit(error_model="numpy", forceinline=True)
def larger(a: Any, b: Any) -> Any:
    """Maximum, NaN where either is."""
    return a if a > b or a != a else b


@nb.njit(error_model="numpy", forceinline=True)
def smaller(a: Any, b: Any) -> Any:
    """Minimum, NaN where either is."""
    return a if a < b or a != a else b


@nb.njit(error_model="numpy", forceinline=True)
def clip(x: Any, low: Any, high: Any) -> Any:
    """min(max(x, low), high), NaN kept."""
    raised = x if x > low or x != x else low
    return raised if raised < high or raised != raised else high


@functools.cache
def elementwise(
    *, expression: tuple[Any, ...], operands: tuple[str, ...], arithmetic: str, output: str, inner: tuple[int, ...], outer: int
) -> Any:
    """A kernel for `expression`, a nested tuple: (operator, argument, …, (parameter, value), …).

    An integer argument is an operand's number.

    `inner` holds, per operand, 1 where it advances along the inner dimension and 0 where it is broadcast; `outer` counts the outer
    dimensions.
    """
    count = len(operands)
    dims = [f"d{axis}" for axis in range(outer)]
    strides = [f"s{operand}_{axis}" for operand in range(count) for axis in range(outer)]
    header = ", ".join([*(f"a{i}" for i in range(count)), "out", "n", *dims, *strides, "low", "high"])
    lines = [f"def kernel({header}):"]
    lines += [f"    p{i} = P{i}(a{i})" for i in range(count)] + ["    q = Q(out)"]
    reads = {i: f"p{i}[b{i} + i]" if inner[i] else f"v{i}" for i in range(count)}
    body = _render(expression, reads)
    store = f"q[at + i] = {'1 if ' + body + ' else 0' if output == 'bool' else f'R({body})'}"
    if outer:
        lines += ["    for row in range(low, high):", "        rest = row"]
        for axis in reversed(range(outer)):
            lines += [f"        i{axis} = rest % d{axis}", f"        rest = rest // d{axis}"] if axis else ["        i0 = rest"]
        for i in range(count):
            lines.append(f"        b{i} = " + " + ".join(f"i{axis} * s{i}_{axis}" for axis in range(outer)))
        lines += ["        at = row * n", *(f"        v{i} = p{i}[b{i}]" for i in range(count) if not inner[i])]
        lines += ["        for i in range(n):", f"            {store}"]
    else:
        lines += ["    at = 0", *(f"    b{i} = 0" for i in range(count)), *(f"    v{i} = p{i}[0]" for i in range(count) if not inner[i])]
        lines += [f"    for i in range(low * {CHUNK}, min(high * {CHUNK}, n)):", f"        {store}"]
    namespace: dict[str, Any] = {
        "math": math,
        "np": np,
        "quotient": unsigned_quotient if arithmetic.startswith("uint") else quotient,
        "remainder": unsigned_remainder if arithmetic.startswith("uint") else remainder,
        "floored": floored,
        "whole": whole,
        "whole_unsigned": whole_unsigned,
        "larger": larger,
        "smaller": smaller,
        "clip": clip,
        "T": NUMBA_TYPES[arithmetic],
        "R": NUMBA_TYPES[output],
        "Q": POINTERS[output],
        "rint": _rint(arithmetic),
        "erf": ERF.get(arithmetic),
        "exp": EXP.get(arithmetic),
        "expm1": EXPM1.get(arithmetic),
        "tanh": TANH.get(arithmetic),
        "sigmoid": SIGMOID.get(arithmetic),
        "power": _power(arithmetic),
        "__name__": "openinfer.generated",
        **{f"P{i}": POINTERS[dtype] for i, dtype in enumerate(operands)},
    }
    exec(compile("\n".join(lines), "<openinfer elementwise>", "exec"), namespace)
    return nb.njit(error_model="numpy")(namespace["kernel"])


def _render(expression: Any, reads: dict[int, str]) -> str:
    if isinstance(expression, int):
        return reads[expression]
    name, *rest = expression
    arguments = [_render(item, reads) for item in rest if not (isinstance(item, tuple) and item[0].islower())]
    parameters = {item[0]: _literal(item[1]) for item in rest if isinstance(item, tuple) and item[0].islower()}
    return TEMPLATES[name].format(*arguments, **parameters)


def _literal(value: Any) -> str:
    return (
        repr(value)
        if isinstance(value, (bool, int)) or math.isfinite(value)
        else f"np.{'nan' if value != value else 'inf' if value > 0 else 'inf * -1'}"
    )


def _rint(dtype: str) -> Any:
    from openinfer.kernels.cpu.vector_math import nearest

    return nearest if dtype in ("float32", "float64") else None


@functools.cache
def _power(dtype: str) -> Any:
    kind = NUMBA_TYPES[dtype]
    if dtype in ("float32", "float64"):

        @nb.njit(error_model="numpy", forceinline=True)
        def power(a: Any, b: Any) -> Any:
            return a * a if b == 2 else kind(math.pow(a, kind(b)))
    else:

        @nb.njit(error_model="numpy", forceinline=True)
        def power(a: Any, b: Any) -> Any:
            result = kind(1)
            for _ in range(b):
                result = kind(result * a)
            return result

    return power
