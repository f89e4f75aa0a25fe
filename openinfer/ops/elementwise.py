"""Elementwise operators: each is an expression; broadcasting and fusion are shared. `step` also serves other families."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops._base import (
    FLOATS,
    INTEGERS,
    NUMBERS,
    Alias,
    NotCompiled,
    Operand,
    Operator,
    Packed,
    Step,
    Target,
    Value,
    known,
    optional,
    required,
    same_dtype,
)
from openinfer.ops.broadcast import loops

CHUNK = 4096
ONNX_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
SLOW = frozenset(
    {"Exp", "Log", "Erf", "Tanh", "Sigmoid", "Pow", "Softplus", "GeluErf", "GeluTanh", "Swish", "Elu", "Selu", "Celu", "Sin", "Cos", "Tan"}
)
SLOW_NS, FAST_NS, CALL_NS = 3.0, 0.3, 5.0

Expression = Any
Build = Callable[[Node, Sequence[Value]], Expression]


def step(expression: Expression, operands: Sequence[tuple[Operand, TensorType, bool]], arithmetic: str, output: Value) -> Step:
    """One kernel call for `expression` over (operand, its type, whether it is constant)."""
    nest = loops(output.shape, [kind.shape for _, kind, _ in operands], [constant for _, _, constant in operands])
    rows = math.prod(nest.outer)
    statics = {
        "expression": expression,
        "operands": tuple(kind.dtype for _, kind, _ in operands),
        "arithmetic": arithmetic,
        "output": output.dtype,
        "inner": nest.inner,
        "outer": len(nest.outer),
    }
    sizes = (nest.inner_size, *nest.outer, *(stride for row in nest.strides for stride in row))
    blocks = rows if nest.outer else -(-nest.inner_size // CHUNK)
    cost = CALL_NS + output.type.count * (SLOW_NS if _names(expression) & SLOW else FAST_NS)
    return Step("elementwise", statics, (*(operand for operand, _, _ in operands), output), sizes, blocks, cost, (len(operands),))


def _names(expression: Expression) -> set[str]:
    if not isinstance(expression, tuple):
        return set()
    return {expression[0]}.union(*(_names(item) for item in expression[1:]))


def _operator(
    build: Build, dtypes: Sequence[str], output: str | None = None, typed_by: int = 0, oldest: int = 7, arity: int | None = None
) -> Operator:
    """An operator whose inputs of type `dtypes` share the dtype of input `typed_by`; `output` overrides the result's dtype."""

    def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
        values = _present(inputs, arity)
        dtype = values[typed_by].dtype
        if dtype not in dtypes:
            raise NotCompiled(f"dtype {dtype}")
        if node.op != "Pow":
            same_dtype(*values)
        if node.version < oldest:
            raise NotCompiled(f"opset {node.version}; compiled from {oldest}")
        try:
            shape = np.broadcast_shapes(*(value.shape for value in values))
        except ValueError:
            raise NotCompiled(f"shapes {', '.join(str(value.shape) for value in values)} do not broadcast") from None
        return [TensorType(output or dtype, shape)]

    def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
        values = _present(inputs, arity)
        operands = [(value, value.type, value.constant) for value in values]
        return [step(build(node, values), operands, values[typed_by].dtype, required(outputs, 0))]

    return Operator(infer, lower)


def _present(inputs: Sequence[Value | None], arity: int | None) -> list[Value]:
    count = len(inputs) if arity is None else arity
    return [required(inputs, position) for position in range(count)]


def _plain(name: str, **defaults: float) -> Build:
    """The operator over its inputs in order, with float attributes as parameters."""

    def build(node: Node, values: Sequence[Value]) -> Expression:
        parameters = tuple((key, float(node.attribute(key, default))) for key, default in defaults.items())
        return (name, *range(len(values)), *parameters)

    return build


def _fold(name: str) -> Build:
    """A left fold over any number of inputs."""

    def build(node: Node, values: Sequence[Value]) -> Expression:
        expression: Expression = 0
        for position in range(1, len(values)):
            expression = (name, expression, position)
        return expression if len(values) > 1 else ("Cast", 0)

    return build


def _mean(node: Node, values: Sequence[Value]) -> Expression:
    return ("Scale", _fold("Add")(node, values), ("alpha", 1.0 / len(values)))


def _divide(node: Node, values: Sequence[Value]) -> Expression:
    return ("DivFloat" if values[0].dtype in FLOATS else "DivInt", 0, 1)


def _modulo(node: Node, values: Sequence[Value]) -> Expression:
    if values[0].dtype in FLOATS:
        return ("Fmod" if node.attribute("fmod", 0) else "Floored", 0, 1)
    if node.attribute("fmod", 0):
        return ("Sub", 0, ("Mul", ("DivInt", 0, 1), 1))
    return ("ModInt", 0, 1)


def _gelu(node: Node, values: Sequence[Value]) -> Expression:
    return ("GeluTanh" if node.attribute("approximate", "none") == "tanh" else "GeluErf", 0)


def _mish(node: Node, values: Sequence[Value]) -> Expression:
    return ("Mul", 0, ("Tanh", ("Softplus", 0)))


def _shift(node: Node, values: Sequence[Value]) -> Expression:
    return ("ShiftLeft" if node.attribute("direction") == "LEFT" else "ShiftRight", 0, 1)


def _infer_dropout(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    x, training = required(inputs, 0), optional(inputs, 2)
    if node.version < 7 or len(node.outputs) > 1:
        raise NotCompiled("training mode, or the mask")
    if training is not None and (training.data is None or np.asarray(training.data).any()):
        raise NotCompiled("training mode")
    return [x.type]


def _lower_dropout(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    return [Alias(required(outputs, 0), required(inputs, 0))]


def _infer_trilu(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    x = required(inputs, 0)
    if x.dtype not in (*NUMBERS, "bool"):
        raise NotCompiled(f"dtype {x.dtype}")
    return [x.type]


def _lower_trilu(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """x where a constant mask says so, zero elsewhere."""
    x, given, upper = required(inputs, 0), optional(inputs, 1), node.attribute("upper", 1)
    k = 0 if given is None else int(np.asarray(known(given, "the diagonal")).reshape(()))
    shape = x.shape[-2:]
    # A diagonal far outside is the same as one just outside, and np.tri takes no more.
    k = max(-shape[0] - 1, min(k, shape[1] + 1))

    def mask() -> Array:
        rows, columns = shape
        return ~np.tri(rows, columns, k - 1, bool) if upper else np.tri(rows, columns, k, bool)

    operands: list[tuple[Operand, TensorType, bool]] = [
        (Packed(f"triangle {shape} {k} {upper}", mask), TensorType("bool", shape), True),
        (x, x.type, x.constant),
        (Packed(f"zeros 1 {x.dtype}", lambda: np.zeros(1, x.dtype)), TensorType(x.dtype, ()), True),
    ]
    return [step(("Where", 0, 1, 2), operands, "uint8", required(outputs, 0))]


def _is_inf(node: Node, values: Sequence[Value]) -> Expression:
    return ("IsInf", 0, ("positive", bool(node.attribute("detect_positive", 1))), ("negative", bool(node.attribute("detect_negative", 1))))


def _power(node: Node, values: Sequence[Value]) -> Expression:
    base, exponent = values
    if exponent.dtype not in NUMBERS:
        raise NotCompiled(f"an exponent of {exponent.dtype}")
    if base.dtype in INTEGERS and (exponent.dtype not in INTEGERS or exponent.data is None or (np.asarray(exponent.data) < 0).any()):
        raise NotCompiled("an integer base with an exponent that may be negative")
    return ("Pow", 0, 1)


def _infer_clip(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    x = required(inputs, 0)
    if x.dtype not in NUMBERS:
        raise NotCompiled(f"dtype {x.dtype}")
    for bound in (optional(inputs, position) for position in (1, 2)):
        if bound is not None and (bound.dtype != x.dtype or bound.type.count != 1):
            raise NotCompiled(f"a bound of {bound.dtype} {bound.shape} for {x.dtype}; compiled for one number of the same dtype")
    return [x.type]


def _lower_clip(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    x = required(inputs, 0)
    operands: list[tuple[Operand, TensorType, bool]] = [(x, x.type, x.constant)]
    expression: Expression = 0
    if node.version < 11:
        low, high = node.attribute("min"), node.attribute("max")
        expression = expression if low is None else ("Max", expression, ("Number", ("value", float(low))))
        expression = expression if high is None else ("Min", expression, ("Number", ("value", float(high))))
    else:
        for position, name in ((1, "Max"), (2, "Min")):
            bound = optional(inputs, position)
            if bound is not None:
                expression = (name, expression, len(operands))
                operands.append((bound, bound.type, bound.constant))
    return [step(expression if expression != 0 else ("Cast", 0), operands, x.dtype, required(outputs, 0))]


def _infer_cast(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    x = required(inputs, 0)
    to = ONNX_DTYPES.get(node.attribute("to", 0)) if node.op == "Cast" else required(inputs, 1).dtype
    if to is None or x.dtype not in (*NUMBERS, "bool") or to not in (*NUMBERS, "bool"):
        raise NotCompiled(f"a cast from {x.dtype} to element type {node.attribute('to', to)}")
    return [TensorType(to, x.shape)]


def _lower_cast(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    x, y = required(inputs, 0), required(outputs, 0)
    if x.dtype == y.dtype:
        return [Alias(y, x)]
    arithmetic = x.dtype if x.dtype in NUMBERS else "uint8"
    if x.dtype in FLOATS and y.dtype in INTEGERS:
        return [step(("WholeUnsigned" if y.dtype == "uint64" else "Whole", 0), [(x, x.type, x.constant)], arithmetic, y)]
    return [step(("CastBool" if y.dtype == "bool" else "Cast", 0), [(x, x.type, x.constant)], arithmetic, y)]


def _infer_where(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    condition, x, y = (required(inputs, position) for position in range(3))
    if same_dtype(x, y) not in (*NUMBERS, "bool") or condition.dtype != "bool":
        raise NotCompiled(f"dtype {x.dtype} where {condition.dtype}")
    return [TensorType(x.dtype, np.broadcast_shapes(condition.shape, x.shape, y.shape))]


def _lower_where(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    operands = [(value, value.type, value.constant) for value in _present(inputs, 3)]
    return [step(("Where", 0, 1, 2), operands, "uint8", required(outputs, 0))]


def _unary(names: Sequence[str], dtypes: Sequence[str] = FLOATS, oldest: int = 6) -> dict[tuple[str, str], Operator]:
    return {("", name): _operator(_plain(name), dtypes, oldest=oldest, arity=1) for name in names}


def _binary(names: Sequence[str], dtypes: Sequence[str], output: str | None = None) -> dict[tuple[str, str], Operator]:
    return {("", name): _operator(_plain(name), dtypes, output) for name in names}


OPERATORS: dict[tuple[str, str], Operator] = {
    **_binary(("Add", "Sub", "Mul"), NUMBERS),
    **_binary(("And", "Or", "Xor"), ("bool",), "bool"),
    **_binary(("BitwiseAnd", "BitwiseOr", "BitwiseXor"), INTEGERS),
    **_binary(("Equal",), (*NUMBERS, "bool"), "bool"),
    **_binary(("Less", "Greater", "LessOrEqual", "GreaterOrEqual"), NUMBERS, "bool"),
    **_unary(("Exp", "Log", "Sqrt", "Floor", "Ceil", "Round", "Erf", "Reciprocal", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish")),
    **_unary(("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh")),
    **_unary(("Neg", "Abs", "Sign", "Relu"), NUMBERS),
    **_unary(("BitwiseNot",), INTEGERS),
    ("", "Not"): _operator(_plain("Not"), ("bool",), arity=1, oldest=1),
    ("", "IsNaN"): _operator(_plain("IsNaN"), FLOATS, "bool", arity=1),
    ("", "IsInf"): _operator(_is_inf, FLOATS, "bool", arity=1),
    ("", "Div"): _operator(_divide, NUMBERS),
    ("", "Mod"): _operator(_modulo, NUMBERS),
    ("", "Pow"): _operator(_power, NUMBERS),
    ("", "Min"): _operator(_fold("Min"), NUMBERS, oldest=8),
    ("", "Max"): _operator(_fold("Max"), NUMBERS, oldest=8),
    ("", "Sum"): _operator(_fold("Add"), FLOATS, oldest=8),
    ("", "Mean"): _operator(_mean, FLOATS, oldest=8),
    ("", "PRelu"): _operator(_plain("PRelu"), FLOATS),
    ("", "LeakyRelu"): _operator(_plain("LeakyRelu", alpha=0.01), FLOATS, oldest=6),
    ("", "Elu"): _operator(_plain("Elu", alpha=1.0), FLOATS, oldest=6),
    ("", "Selu"): _operator(_plain("Selu", alpha=1.67326319217681884765625, gamma=1.05070102214813232421875), FLOATS, oldest=6),
    ("", "Celu"): _operator(_plain("Celu", alpha=1.0), FLOATS),
    ("", "ThresholdedRelu"): _operator(_plain("ThresholdedRelu", alpha=1.0), FLOATS),
    ("", "HardSigmoid"): _operator(_plain("HardSigmoid", alpha=0.2, beta=0.5), FLOATS, oldest=6),
    ("", "Swish"): _operator(_plain("Swish", alpha=1.0), FLOATS),
    ("", "Mish"): _operator(_mish, FLOATS),
    ("", "Shrink"): _operator(_plain("Shrink", lambd=0.5, bias=0.0), FLOATS),
    ("", "BitShift"): _operator(_shift, ("uint8", "uint16", "uint32", "uint64")),
    ("", "Dropout"): Operator(_infer_dropout, _lower_dropout),
    ("", "Trilu"): Operator(_infer_trilu, _lower_trilu),
    ("", "Gelu"): _operator(_gelu, FLOATS),
    ("", "Clip"): Operator(_infer_clip, _lower_clip),
    ("", "Cast"): Operator(_infer_cast, _lower_cast),
    ("", "CastLike"): Operator(_infer_cast, _lower_cast),
    ("", "Where"): Operator(_infer_where, _lower_where),
}
