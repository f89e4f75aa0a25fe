"""CUDA C for a group of elementwise nodes, from the formulas that are also their meaning (`ops/meaning/formula.py`).

    DEVICE void element(const float* __restrict__ p0, const float* __restrict__ p1, float* __restrict__ q, long long i, long long n, …) {
        const float a0 = p0[i];                                   // an operand as large as the result
        const float a1 = p1[i % n];                               // one that is broadcast, by strides of merged dimensions
        const float v0 = (a0 + a1);
        q[i] = ((v0 < 0.0f) ? 0.0f : v0);
    }

A kernel strides over the elements. The same text compiles as C, where a loop calls `element`: so its arithmetic is tested without a GPU.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from openinfer.ops._base import FLOATS, INTEGERS, NotCompiled
from openinfer.ops.broadcast import Loops
from openinfer.ops.meaning.formula import LETTERS, Formula, parse

NAME = "openinfer_elementwise"
TYPES = {
    "float32": "float",
    "float64": "double",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "unsigned long long",
    "bool": "bool",
}
MATH = {name: name for name in ("exp", "expm1", "log", "log1p", "sqrt", "floor", "ceil", "rint", "fmod", "erf")}
MATH |= {name: name for kind in ("", "a") for name in (f"{kind}{f}" for f in ("sin", "cos", "tan", "sinh", "cosh", "tanh"))}
MATH |= {"abs": "fabs", "power": "pow"}

# Functions of the formulas that are no expression of C, over {T} with {U} its unsigned twin and {bits} its width.
FUNCTIONS = {
    "minimum": "{{ return a < b || a != a ? a : b; }}",
    "maximum": "{{ return a > b || a != a ? a : b; }}",
    "quotient": "{{ return b == 0 ? ({T})0 : b == ({T})-1 ? ({T})(0 - ({U})a) : ({T})(a / b); }}",
    "remainder": "{{ if (b == 0 || b == ({T})-1) return 0; const {T} r = ({T})(a % b);"
    " return r != 0 && (r < 0) != (b < 0) ? ({T})(r + b) : r; }}",
    "unsigned quotient": "{{ return b == 0 ? ({T})0 : ({T})(a / b); }}",
    "unsigned remainder": "{{ return b == 0 ? ({T})0 : ({T})(a % b); }}",
    "floored": "{{ const {T} r = fmod{f}(a, b); return r != 0 && (r < 0) != (b < 0) ? r + b : r; }}",
    "shift_left": "{{ return b < {bits} ? ({T})(a << b) : ({T})0; }}",
    "shift_right": "{{ return b < {bits} ? ({T})(a >> b) : ({T})0; }}",
}

PRELUDE = """#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
#else
#include <math.h>
#include <stdbool.h>
#define DEVICE static inline
#endif
"""


@dataclasses.dataclass(frozen=True)
class Statement:
    """One node: its formula over operands, each the number of an input or `~number` of an earlier statement."""

    formula: Formula
    operands: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Source, the function's name, and the numbers that follow the pointers and the element count when it is launched."""

    source: str
    name: str
    numbers: tuple[int, ...]


def render(statements: Sequence[Statement], dtypes: Sequence[str], nest: Loops) -> Kernel:
    """The kernel that evaluates `statements` over inputs of `dtypes`, which `nest` broadcasts to the result, and stores the last one.

    Raises `NotCompiled` for a dtype that C has no arithmetic for.
    """
    for dtype in (*dtypes, *(kind for s in statements for kind in (s.formula.arithmetic, s.formula.output))):
        if dtype not in TYPES:
            raise NotCompiled(f"dtype {dtype} in a generated kernel; allowed: {', '.join(TYPES)}")
    functions: dict[str, str] = {}
    lines = [f"const {TYPES[dtype]} a{i} = p{i}[{_place(i, nest)}];" for i, dtype in enumerate(dtypes)]
    written: list[str] = []
    for number, statement in enumerate(statements):
        formula = statement.formula
        names = {
            letter: (f"a{o}", dtypes[o]) if o >= 0 else (f"v{~o}", written[~o])
            for letter, o in zip(LETTERS, statement.operands, strict=False)
        }
        text, kind = _Render(formula, names, functions).value(parse(formula.text))
        lines.append(f"const {TYPES[formula.output]} v{number} = {_converted(text, kind, formula.output)};")
        written.append(formula.output)
    axes = range(len(nest.outer))
    split = ["long long rest = i / n;"] if axes else []
    for axis in reversed(axes):
        split.append(f"const long long i{axis} = rest % d{axis};" + (f" rest /= d{axis};" if axis else ""))
    pointers = [f"const {TYPES[dtype]}* __restrict__ p{i}" for i, dtype in enumerate(dtypes)]
    pointers.append(f"{TYPES[statements[-1].formula.output]}* __restrict__ q")
    numbers = ["n", *(f"d{axis}" for axis in axes), *(f"s{i}_{axis}" for i in range(len(dtypes)) for axis in axes)]
    header = ", ".join(["long long count", *(f"long long {name}" for name in numbers)])
    body = "\n".join(f"    {line}" for line in (*split, *lines, f"q[i] = v{len(statements) - 1};"))
    call = ", ".join([*(f"p{i}" for i in range(len(dtypes))), "q", "i", *numbers])
    given = ", ".join([*pointers, "long long i", *(f"long long {name}" for name in numbers)])
    source = (
        PRELUDE
        + "".join(functions.values())
        + f"DEVICE void element({given}) {{\n{body}\n}}\n"
        + "#ifdef __CUDACC__\n"
        + f'extern "C" __global__ void {NAME}({", ".join(pointers)}, {header}) {{\n'
        + "    const long long step = (long long)gridDim.x * blockDim.x;\n"
        + f"    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) element({call});\n}}\n"
        + "#else\n"
        + f"void {NAME}({', '.join(pointers)}, {header}) {{\n    for (long long i = 0; i < count; ++i) element({call});\n}}\n"
        + "#endif\n"
    )
    return Kernel(source, NAME, (nest.inner_size, *nest.outer, *(stride for row in nest.strides for stride in row)))


def _place(operand: int, nest: Loops) -> str:
    if not nest.outer:
        return "i" if nest.inner[operand] else "0"
    parts = [f"i{axis} * s{operand}_{axis}" for axis in range(len(nest.outer))]
    return " + ".join([*parts, *(["i % n"] if nest.inner[operand] else [])])


def _converted(text: str, kind: str, to: str) -> str:
    if kind == to:
        return text
    if to == "bool":
        return f"({text} != 0)"
    if kind in FLOATS and to in INTEGERS and to != "uint64":
        return f"({TYPES[to]})(long long)({text})"
    return f"({TYPES[to]})({text})"


def _literal(value: float, dtype: str) -> str:
    if dtype in FLOATS:
        number = float(np.dtype(dtype).type(value))
        if np.isinf(number):
            return f"(({TYPES[dtype]})({'-' if number < 0 else ''}1e300 * 1e300))"
        return repr(number) + ("f" if dtype == "float32" else "")
    return f"(({TYPES[dtype]}){int(value)})"


class _Render:
    """A formula's tree as an expression of C, with the dtype that it has."""

    def __init__(self, formula: Formula, names: Mapping[str, tuple[str, str]], functions: dict[str, str]) -> None:
        self._formula, self._names, self._functions = formula, names, functions

    def value(self, tree: ast.expr) -> tuple[str, str]:
        arithmetic = self._formula.arithmetic
        match tree:
            case ast.Name(id=name) if name in self._names:
                return self._names[name]
            case ast.Name(id=name):
                return _literal(self._formula.parameters[name], arithmetic), arithmetic
            case ast.Constant(value=value) if isinstance(value, (int, float)):
                return _literal(value, arithmetic), arithmetic
            case ast.BinOp(left=left, op=operation, right=right):
                a, kind = self.value(left)
                return self._narrow(f"({a} {_BINARY[type(operation)]} {self.value(right)[0]})", kind)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                a, kind = self.value(operand)
                return self._narrow(f"(-{a})", kind)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                a, kind = self.value(operand)
                return (f"(!{a})", kind) if kind == "bool" else self._narrow(f"(~{a})", kind)
            case ast.Compare(left=left, ops=[compare], comparators=[right]):
                return f"({self.value(left)[0]} {_COMPARE[type(compare)]} {self.value(right)[0]})", "bool"
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return self._call(name, [self.value(argument) for argument in arguments])
        raise NotCompiled(f"no C for {ast.dump(tree)}")

    def _call(self, name: str, arguments: list[tuple[str, str]]) -> tuple[str, str]:
        texts, kind = [text for text, _ in arguments], arguments[0][1]
        if name == "where":
            return f"({texts[0]} ? {texts[1]} : {texts[2]})", arguments[1][1]
        suffix = "f" if kind == "float32" else ""
        if name in MATH and kind in FLOATS:
            given = [texts[0], *(f"({TYPES[kind]}){text}" for text in texts[1:])]
            return f"{MATH[name]}{suffix}({', '.join(given)})", kind
        if name == "abs":
            return self._narrow(f"({texts[0]} < 0 ? -{texts[0]} : {texts[0]})", kind)
        own = f"{name}_{kind}"
        c = TYPES[kind]
        unsigned = f"unsigned {name}"
        body = FUNCTIONS[unsigned if kind.startswith("uint") and unsigned in FUNCTIONS else name].format(
            T=c,
            U=TYPES[kind.replace("int", "uint") if kind.startswith("int") else kind],
            f=suffix,
            bits=8 * np.dtype(kind).itemsize,
        )
        self._functions[own] = f"DEVICE {c} {own}({c} a, {c} b) {body}\n"
        return f"{own}({', '.join(texts)})", kind

    def _narrow(self, text: str, kind: str) -> tuple[str, str]:
        """C computes narrow integers as int: what does not fit is cut off at once, as array arithmetic does."""
        return (f"({TYPES[kind]}){text}" if kind in ("int8", "int16", "uint8", "uint16") else text), kind


_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
