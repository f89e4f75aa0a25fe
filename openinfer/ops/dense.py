"""Gemm and MatMul: shapes, and lowering to the packed `gemm` kernel or, with operands that only the call knows, to `product`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops import dense_tile, elementwise
from openinfer.ops._base import (
    Alias,
    NotCompiled,
    Operand,
    Operator,
    Packed,
    Scratch,
    Step,
    Target,
    Value,
    float_only,
    optional,
    required,
    same_dtype,
)
from openinfer.ops.dense_packing import pack_panels, pad_vector
from openinfer.ops.dense_tile import FLOPS_PER_NS, Epilogue, epilogue, tile_shape
from openinfer.ops.product import Matrices, multiply

FUSIBLE_ACTIVATIONS = dense_tile.FUSIBLE_ACTIVATIONS
CALL_NS = 10.0

Inputs = Sequence[Value | None]


def infer_gemm(node: Node, inputs: Inputs) -> list[TensorType]:
    """[M, K] × [K, N] → [M, N], either operand transposed."""
    a, b = required(inputs, 0), required(inputs, 1)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise NotCompiled(f"operands of shapes {a.shape} and {b.shape}; compiled for matrices")
    m, k = a.shape[::-1] if node.attribute("transA", 0) else a.shape
    inner, n = b.shape[::-1] if node.attribute("transB", 0) else b.shape
    if inner != k:
        raise NotCompiled(f"inner dimensions {k} and {inner} differ")
    c = optional(inputs, 2)
    dtype = _same_dtype(*(value for value in (a, b, c) if value is not None))
    if c is not None and (len(c.shape) > 2 or any(d not in (1, size) for d, size in zip(c.shape[::-1], (n, m), strict=False))):
        raise NotCompiled(f"C of shape {c.shape} does not broadcast to {(m, n)}")
    return [TensorType(dtype, (m, n))]


def lower_gemm(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One `gemm` step with alpha and beta folded into the packed constants where B and a row of C are; otherwise the bare product, then
    alpha · product + beta · C as one elementwise step.
    """
    a, b, c, y = required(inputs, 0), required(inputs, 1), optional(inputs, 2), required(outputs, 0)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    turned_a, turned_b = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    (m, n), k = y.shape, a.shape[0] if turned_a else a.shape[1]
    weight, row = _constant(b), c is None or (c.constant and c.shape in ((), (1,), (n,), (1, 1), (1, n)))
    if weight is not None and row and not turned_a:
        weight = weight.T if turned_b else weight
        if alpha != 1.0:
            weight = (alpha * weight.astype(np.float64)).astype(weight.dtype)
        data = None if c is None else c.data
        bias = None if data is None else np.broadcast_to((beta * data.astype(np.float64)).reshape(-1), (n,)).astype(weight.dtype)
        return [constant_product(node.outputs[0], a, weight, bias, m, y, epilogue(node), target)]
    plain = c is None and alpha == 1.0
    after = y if plain else Scratch("product", max(1, y.type.size_bytes))
    steps = multiply(
        node.outputs[0],
        Matrices(a, (), *((1, m) if turned_a else (k, 1))),
        Matrices(b, (), *((1, k) if turned_b else (n, 1))),
        (m, n, k),
        after,
        epilogue(node) if plain else Epilogue(),
        target,
    )
    if plain:
        return steps
    operands: list[tuple[Operand, TensorType, bool]] = [(after, y.type, False)]
    expression: elementwise.Expression = 0 if alpha == 1.0 else ("Scale", 0, ("alpha", float(alpha)))
    if c is not None:
        operands.append((c, c.type, c.constant))
        expression = ("Add", expression, 1 if beta == 1.0 else ("Scale", 1, ("alpha", float(beta))))
    return [*steps, elementwise.step(_activated(expression, epilogue(node)), operands, y.dtype, y)]


def infer_matmul(node: Node, inputs: Inputs) -> list[TensorType]:
    """NumPy's matmul rules."""
    a, b = required(inputs, 0), required(inputs, 1)
    if not a.shape or not b.shape:
        raise NotCompiled("a scalar operand")
    left = (1, *a.shape) if len(a.shape) == 1 else a.shape
    right = (*b.shape, 1) if len(b.shape) == 1 else b.shape
    if left[-1] != right[-2]:
        raise NotCompiled(f"inner dimensions {left[-1]} and {right[-2]} differ")
    try:
        batch = np.broadcast_shapes(left[:-2], right[:-2])
    except ValueError:
        raise NotCompiled(f"batches {left[:-2]} and {right[:-2]} do not broadcast") from None
    tail = left[-2:-1] * (len(a.shape) > 1) + right[-1:] * (len(b.shape) > 1)
    return [TensorType(_same_dtype(a, b), (*batch, *tail))]


def lower_matmul(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """One `gemm` step over all rows of A where B is a constant matrix; a matrix product per batch entry otherwise."""
    a, b, y = required(inputs, 0), required(inputs, 1), required(outputs, 0)
    weight, given = _constant(b), optional(inputs, 2)
    if weight is not None and weight.ndim == 2:
        bias = None if given is None else _constant(given)
        return [constant_product(node.outputs[0], a, weight, bias, math.prod(a.shape[:-1]), y, epilogue(node), target)]
    left = (1, *a.shape) if len(a.shape) == 1 else a.shape
    right = (*b.shape, 1) if len(b.shape) == 1 else b.shape
    k, n = right[-2:]
    if 0 in right:
        raise NotCompiled(f"B of shape {b.shape}")
    # One matrix B serves all rows of A at once.
    batch, m = (left[:-2], left[-2]) if len(right) > 2 else ((), math.prod(left[:-1]))
    return multiply(node.outputs[0], Matrices(a, batch, k, 1), Matrices(b, right[:-2], n, 1), (m, n, k), y, epilogue(node), target)


def constant_product(
    name: str, a: Operand, weight: Array, bias: Array | None, m: int, output: Operand, after: Epilogue, target: Target
) -> Step:
    """One `gemm` step: A[m, k] · `weight`[k, n] + `bias`[n]. `name` tells the packed arrays of different nodes apart."""
    dtype, (k, n) = weight.dtype.name, weight.shape
    rows, vectors = tile_shape(n, dtype, target, fixed=True)
    width = vectors * target.machine.lanes(dtype)
    vector = bias if bias is not None else np.zeros(n, weight.dtype)
    source = f"{name}:{width}"
    return Step(
        "gemm",
        {"dtype": dtype, "k": k, "rows": rows, "vectors": vectors, **after.statics},
        (
            a,
            Packed(f"{source}:weight", lambda: pack_panels(weight, width)),
            Packed(f"{source}:bias", lambda: pad_vector(vector, width)),
            output,
        ),
        (m, n, k, n),
        -(-m // rows) * -(-n // width),
        CALL_NS + 2.0 * m * n * k / FLOPS_PER_NS[dtype],
        (3,),
    )


def _activated(expression: elementwise.Expression, after: Epilogue) -> elementwise.Expression:
    if after.activation == "LeakyRelu":
        return ("LeakyRelu", expression, ("alpha", after.low_bound))
    if after.activation == "Clip":
        low, high = ("Number", ("value", after.low_bound)), ("Number", ("value", after.high_bound))
        return ("Min", ("Max", expression, low), high)
    return ("Cast", expression) if after.activation is None else (after.activation, expression)


def _same_dtype(*values: Value) -> str:
    float_only(values[0])
    return same_dtype(*values)


def _constant(value: Value) -> Array | None:
    """The content that is the same in every call, if it is."""
    return value.data if value.constant else None


OPERATORS = {
    ("", "Gemm"): Operator(infer_gemm, lower_gemm),
    ("", "MatMul"): Operator(infer_matmul, lower_matmul),
}
