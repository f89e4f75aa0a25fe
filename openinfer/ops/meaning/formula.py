"""Formulas of elementwise operators: text in a small part of Python, read by NumPy and CuPy as array arithmetic and by the kernel
generator as CUDA C. One text is the only place that says what an operator computes.

    where(a < 0, alpha * a, a)          a, b, c … are the inputs in order, other names the parameters, numbers have the arithmetic dtype
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclasses.dataclass(frozen=True)
class Formula:
    """`text` over the inputs a, b, c …; numbers and `parameters` are rounded to `arithmetic`, the result is converted to `output`."""

    text: str
    arithmetic: str
    output: str
    parameters: Mapping[str, float] = dataclasses.field(default_factory=dict)


@functools.cache
def parse(text: str) -> ast.expr:
    """The formula's tree."""
    return ast.parse(text, mode="eval").body


def erf(xp: Any, x: Any) -> Any:
    """The error function, which both namespaces keep in their SciPy companion."""
    companion = {"numpy": "scipy.special", "cupy": "cupyx.scipy.special"}[xp.__name__]
    return importlib.import_module(companion).erf(x)


def quotient(xp: Any, a: Any, b: Any) -> Any:
    """Integer division that truncates; 0 where the divisor is 0."""
    safe = xp.where(b == 0, xp.ones_like(b), b)
    floor = a // safe
    if a.dtype.kind == "i":
        floor = xp.where((floor < 0) & (floor * safe != a), floor + a.dtype.type(1), floor)
    return xp.where(b == 0, xp.zeros_like(a), floor)


def remainder(xp: Any, a: Any, b: Any) -> Any:
    """Integer remainder with the divisor's sign; 0 where the divisor is 0."""
    safe = xp.where(b == 0, xp.ones_like(b), b)
    return xp.where(b == 0, xp.zeros_like(a), a - (a // safe) * safe)


def floored(xp: Any, a: Any, b: Any) -> Any:
    """Floating-point remainder with the divisor's sign."""
    rest = xp.fmod(a, b)
    return xp.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


def _shift(operation: str) -> Callable[..., Any]:
    def shift(xp: Any, a: Any, b: Any) -> Any:
        bits = a.dtype.type(8 * a.dtype.itemsize)
        inside = b < bits
        by = xp.where(inside, b, xp.zeros_like(b))
        return xp.where(inside, getattr(xp, operation)(a, by), xp.zeros_like(a))

    return shift


def _power(xp: Any, a: Any, b: Any) -> Any:
    return xp.power(a, b.astype(a.dtype))


def _named(name: str) -> Callable[..., Any]:
    return lambda xp, *arguments: getattr(xp, name)(*arguments)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        name: _named(name)
        for name in (
            "where", "minimum", "maximum", "exp", "expm1", "log", "log1p", "sqrt", "floor", "ceil", "rint", "fmod", "sin", "cos", "tan",
            "sinh", "cosh", "tanh",
        )
    },
    **{f"a{name}": _named(f"arc{name}") for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    "abs": _named("abs"),
    "erf": erf,
    "quotient": quotient,
    "remainder": remainder,
    "floored": floored,
    "shift_left": _shift("left_shift"),
    "shift_right": _shift("right_shift"),
    "power": _power,
}  # fmt: skip

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.BitAnd: lambda a, b: a & b,
    ast.BitOr: lambda a, b: a | b,
    ast.BitXor: lambda a, b: a ^ b,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}


def evaluate(formula: Formula, xp: Any, inputs: Sequence[Any]) -> Any:
    """The formula over arrays that broadcast against each other: an array of dtype `formula.output`."""
    number = np.dtype(formula.arithmetic).type
    names = dict(zip(LETTERS, inputs, strict=False))
    # After the inputs: a parameter is never named by one letter.
    names.update({name: number(value) for name, value in formula.parameters.items()})
    return convert(xp, xp.asarray(_value(parse(formula.text), xp, names, number)), formula.output)


def convert(xp: Any, array: Any, dtype: str) -> Any:
    """`array` in `dtype`; numbers go towards zero to int64, of which a narrower integer keeps the low bits."""
    if array.dtype.name == dtype:
        return array
    if dtype == "bool":
        return array != array.dtype.type(0)
    if array.dtype.kind == "f" and np.dtype(dtype).kind in "iu" and dtype != "uint64":
        return array.astype("int64").astype(dtype)
    return array.astype(dtype)


def _value(tree: ast.expr, xp: Any, names: Mapping[str, Any], number: Any) -> Any:
    def inner(child: ast.expr) -> Any:
        return _value(child, xp, names, number)

    match tree:
        case ast.Name(id=name):
            return names[name]
        case ast.Constant(value=value):
            return number(value)
        case ast.BinOp(left=left, op=operation, right=right):
            return _BINARY[type(operation)](inner(left), inner(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -inner(operand)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~inner(operand)
        case ast.Compare(left=left, ops=[operation], comparators=[right]):
            return _COMPARE[type(operation)](inner(left), inner(right))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](xp, *(inner(argument) for argument in arguments))
    raise ValueError(f"a formula cannot hold {ast.dump(tree)}")
