"""Elementwise operators as formulas, and Dropout and Trilu, which are almost that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from openinfer.ir.graph import Node
from openinfer.ops._base import FLOATS, INTEGERS, NUMBERS, NotCompiled
from openinfer.ops.elementwise import ONNX_DTYPES
from openinfer.ops.meaning._base import Call, Formulate, Meaning, Meanings
from openinfer.ops.meaning.formula import LETTERS, Formula, convert, evaluate

ALL = (*NUMBERS, "bool", "float16")
FLOATING = (*FLOATS, "float16")
SIGNED = tuple(dtype for dtype in INTEGERS if dtype.startswith("int"))
UNSIGNED = tuple(dtype for dtype in INTEGERS if dtype.startswith("uint"))

# Operator → formula, the same for every dtype that it allows.
UNARY = {
    **{name: f"{name.lower()}(a)" for name in ("Exp", "Log", "Sqrt", "Floor", "Ceil", "Erf", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Tanh")},
    **{name: f"{name.lower()}(a)" for name in ("Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh")},
    "Round": "rint(a)",
    "Reciprocal": "1 / a",
    "Sigmoid": "1 / (1 + exp(-a))",
    "Softplus": "maximum(a, 0) + log1p(exp(-abs(a)))",
    "Softsign": "a / (1 + abs(a))",
    "HardSwish": "a * maximum(0, minimum(1, a / 6 + 0.5))",
    "Mish": "a * tanh(maximum(a, 0) + log1p(exp(-abs(a))))",
    "LeakyRelu": "where(a < 0, alpha * a, a)",
    "Elu": "where(a < 0, alpha * expm1(minimum(a, 0)), a)",
    "Selu": "gamma * where(a > 0, a, alpha * expm1(minimum(a, 0)))",
    "Celu": "where(a > 0, a, alpha * expm1(minimum(a, 0) / alpha))",
    "ThresholdedRelu": "where(a > alpha, a, 0)",
    "HardSigmoid": "maximum(0, minimum(1, alpha * a + beta))",
    "Swish": "a / (1 + exp(-(alpha * a)))",
    "Shrink": "where(a < -lambd, a + bias, where(a > lambd, a - bias, 0))",
}
DEFAULTS = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "Celu": {"alpha": 1.0},
    "ThresholdedRelu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Swish": {"alpha": 1.0},
    "Shrink": {"lambd": 0.5, "bias": 0.0},
}
BINARY = {"Add": "a + b", "Sub": "a - b", "Mul": "a * b", "PRelu": "where(a < 0, b * a, a)"}
LOGICAL = {"And": "a & b", "Or": "a | b", "Xor": "a ^ b", "Not": "~a"}
BITWISE = {"BitwiseAnd": "a & b", "BitwiseOr": "a | b", "BitwiseXor": "a ^ b", "BitwiseNot": "~a"}
COMPARISONS = {"Equal": "a == b", "Less": "a < b", "Greater": "a > b", "LessOrEqual": "a <= b", "GreaterOrEqual": "a >= b"}
FOLDS = {"Min": "minimum({}, {})", "Max": "maximum({}, {})", "Sum": "{} + {}", "Mean": "{} + {}"}


def _plain(text: str, dtypes: Sequence[str], output: str | None = None, defaults: Mapping[str, float] | None = None) -> Formulate:
    """`text` over inputs of one dtype, with float attributes as parameters."""

    def formulate(node: Node, found: Sequence[str]) -> Formula:
        dtype = _same(node, found, dtypes)
        parameters = {name: float(node.attribute(name, default)) for name, default in (defaults or {}).items()}
        return Formula(text, dtype, output or dtype, parameters)

    return formulate


def _same(node: Node, found: Sequence[str], dtypes: Sequence[str]) -> str:
    if len(set(found)) != 1 or found[0] not in dtypes:
        raise NotCompiled(f"{node.op} of {', '.join(found)}; its meaning takes one dtype of {', '.join(dtypes)}")
    if node.version < 7 and len(found) > 1 and node.op not in ("Sum", "Mean", "Min", "Max"):
        raise NotCompiled(f"opset {node.version}, which broadcasts by attributes")
    return found[0]


def _numbered(node: Node, found: Sequence[str]) -> str:
    return _same(node, found, (*NUMBERS, "float16"))


def _negative(node: Node, found: Sequence[str]) -> Formula:
    dtype = _numbered(node, found)
    return Formula("0 - a" if dtype in UNSIGNED else "-a", dtype, dtype)


def _absolute(node: Node, found: Sequence[str]) -> Formula:
    dtype = _numbered(node, found)
    return Formula("a" if dtype in UNSIGNED else "abs(a)", dtype, dtype)


def _sign(node: Node, found: Sequence[str]) -> Formula:
    dtype = _numbered(node, found)
    return Formula("where(a > 0, 1, a)" if dtype in UNSIGNED else "where(a > 0, 1, where(a < 0, -1, a))", dtype, dtype)


def _relu(node: Node, found: Sequence[str]) -> Formula:
    dtype = _numbered(node, found)
    return Formula("a" if dtype in UNSIGNED else "where(a < 0, 0, a)", dtype, dtype)


def _divide(node: Node, found: Sequence[str]) -> Formula:
    dtype = _numbered(node, found)
    return Formula("quotient(a, b)" if dtype in INTEGERS else "a / b", dtype, dtype)


def _modulo(node: Node, found: Sequence[str]) -> Formula:
    dtype = _numbered(node, found)
    if dtype in INTEGERS:
        return Formula("a - quotient(a, b) * b" if node.attribute("fmod", 0) else "remainder(a, b)", dtype, dtype)
    return Formula("fmod(a, b)" if node.attribute("fmod", 0) else "floored(a, b)", dtype, dtype)


def _power(node: Node, found: Sequence[str]) -> Formula:
    base, exponent = found
    if base not in FLOATING or exponent not in (*NUMBERS, "float16"):
        raise NotCompiled(f"a power of {base} by {exponent} has no formula")
    return Formula("power(a, b)", base, base)


def _fold(node: Node, found: Sequence[str]) -> Formula:
    """A left fold over any number of inputs."""
    dtype = _same(node, found, (*NUMBERS, "float16") if node.op in ("Min", "Max") else FLOATING)
    if len(found) > len(LETTERS):
        raise NotCompiled(f"{len(found)} inputs; its meaning takes {len(LETTERS)}")
    text = "a"
    for letter in LETTERS[1 : len(found)]:
        text = FOLDS[node.op].format(text, letter)
    return Formula(
        f"({text}) * share" if node.op == "Mean" else text, dtype, dtype, {"share": 1.0 / len(found)} if node.op == "Mean" else {}
    )


def _gelu(node: Node, found: Sequence[str]) -> Formula:
    dtype = _same(node, found, FLOATING)
    if node.attribute("approximate", "none") == "tanh":
        return Formula("0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)))", dtype, dtype)
    return Formula("0.5 * a * (1 + erf(a * 0.7071067811865476))", dtype, dtype)


def _is_inf(node: Node, found: Sequence[str]) -> Formula:
    dtype = _same(node, found, FLOATING)
    signs = [text for name, text in (("detect_positive", "(a == inf)"), ("detect_negative", "(a == -inf)")) if node.attribute(name, 1)]
    return Formula(" | ".join(signs) or "(a != a) & (a == a)", dtype, "bool", {"inf": float("inf")})


def _shift(node: Node, found: Sequence[str]) -> Formula:
    dtype = _same(node, found, UNSIGNED)
    return Formula("shift_left(a, b)" if node.attribute("direction") == "LEFT" else "shift_right(a, b)", dtype, dtype)


def _where(node: Node, found: Sequence[str]) -> Formula:
    dtype = _same(node, found[1:], ALL)
    if found[0] != "bool":
        raise NotCompiled(f"a condition of {found[0]}; allowed: bool")
    return Formula("where(a, b, c)", dtype, dtype)


def _cast(node: Node, found: Sequence[str]) -> Formula:
    to = {**ONNX_DTYPES, 10: "float16"}.get(node.attribute("to", 0)) if node.op == "Cast" else found[1]
    if to not in ALL or found[0] not in ALL:
        raise NotCompiled(f"a cast from {found[0]} to element type {node.attribute('to', to)}")
    return Formula("a", found[0], to)


def _clip(node: Node, found: Sequence[str]) -> Formula:
    """Bounds are attributes before opset 11, inputs after; an absent input is named by the empty string."""
    dtype = _same(node, [name for name in found if name], (*NUMBERS, "float16"))
    if node.version < 11:
        given = {"low": node.attribute("min"), "high": node.attribute("max")}
        bounds = {name: float(value) for name, value in given.items() if value is not None}
        text = "maximum(a, low)" if "low" in bounds else "a"
        return Formula(f"minimum({text}, high)" if "high" in bounds else text, dtype, dtype, bounds)
    low, high = (position < len(found) and bool(found[position]) for position in (1, 2))
    text = "maximum(a, b)" if low else "a"
    return Formula(f"minimum({text}, {'c' if low else 'b'})" if high else text, dtype, dtype)


def _elementwise(formulate: Formulate, least: int = 1, most: int | None = None) -> Meaning:
    """An operator that is its formula, of `least` to `most` inputs (`None`: any number)."""

    def meaning(call: Call) -> list[object]:
        given = [call.optional(position) for position in range(max(least, min(len(call.inputs), most or len(call.inputs))))]
        dtypes = ["" if array is None else array.dtype.name for array in given]
        for position in range(least):
            call.array(position)
        formula = formulate(call.node, dtypes)
        return [evaluate(formula, call.xp, [array for array in given if array is not None])]

    return Meaning(meaning, (), formulate)


def _general_power(call: Call) -> list[object]:
    """Bases and exponents of any two dtypes; the result has the base's."""
    xp, base, exponent = call.xp, call.array(0), call.array(1)
    if base.dtype.kind == "f":
        return [evaluate(_power(call.node, [base.dtype.name, exponent.dtype.name]), xp, [base, exponent])]
    return [convert(xp, xp.asarray(xp.power(base, exponent)), base.dtype.name)]


def _dropout(call: Call) -> list[object]:
    """Inference: the input, and a mask that keeps everything."""
    training = call.optional(2)
    if call.node.version < 7 or (training is not None and np.asarray(training).any()):
        raise NotCompiled("training mode")
    x = call.array(0)
    mask = [call.xp.ones(x.shape, "bool" if call.node.version >= 10 else x.dtype)] if len(call.node.outputs) > 1 else []
    return [x, *mask]


def _trilu(call: Call) -> list[object]:
    """One triangle of each matrix, zeros elsewhere."""
    x, given, upper = call.array(0), call.integers(1), call.attribute("upper", 1)
    rows, columns = x.shape[-2:]
    k = max(-rows - 1, min((given or [0])[0], columns + 1))  # a diagonal far outside is the same as one just outside
    mask = call.keep((rows, columns, k), lambda: ~np.tri(rows, columns, k - 1, bool) if upper else np.tri(rows, columns, k, bool))
    return [call.xp.where(mask, x, call.xp.zeros_like(x))]


MEANINGS: Meanings = {
    **{("", name): _elementwise(_plain(text, FLOATING, defaults=DEFAULTS.get(name)), 1, 1) for name, text in UNARY.items()},
    **{("", name): _elementwise(_plain(text, (*NUMBERS, "float16")), 2, 2) for name, text in BINARY.items()},
    **{("", name): _elementwise(_plain(text, ("bool",)), 1 if name == "Not" else 2) for name, text in LOGICAL.items()},
    **{("", name): _elementwise(_plain(text, INTEGERS), 1 if name == "BitwiseNot" else 2) for name, text in BITWISE.items()},
    **{("", name): _elementwise(_plain(text, ALL, "bool"), 2, 2) for name, text in COMPARISONS.items()},
    **{("", name): _elementwise(_fold) for name in FOLDS},
    ("", "IsNaN"): _elementwise(_plain("a != a", FLOATING, "bool")),
    ("", "IsInf"): _elementwise(_is_inf),
    ("", "Neg"): _elementwise(_negative),
    ("", "Abs"): _elementwise(_absolute),
    ("", "Sign"): _elementwise(_sign),
    ("", "Relu"): _elementwise(_relu),
    ("", "Div"): _elementwise(_divide, 2, 2),
    ("", "Mod"): _elementwise(_modulo, 2, 2),
    ("", "Gelu"): _elementwise(_gelu),
    ("", "BitShift"): _elementwise(_shift, 2, 2),
    ("", "Where"): _elementwise(_where, 3, 3),
    ("", "Cast"): _elementwise(_cast, 1, 1),
    # Its second input gives a dtype and no shape: no kernel may broadcast over it.
    ("", "CastLike"): Meaning(_elementwise(_cast, 2, 2).evaluate),
    ("", "Clip"): _elementwise(_clip, 1, 3),
    ("", "Pow"): Meaning(_general_power, (), _power),
    ("", "Dropout"): Meaning(_dropout, (1, 2)),
    ("", "Trilu"): Meaning(_trilu, (1,)),
}
