"""Gemm and MatMul with constant weights: shapes, and lowering to the packed `gemm` kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operator, Packed, Step, Target, Value, float_only, known, optional, required
from openinfer.ops.dense_packing import pack_panels, pad_vector

FUSIBLE_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")
FLOPS_PER_NS = {"float32": 80.0, "float64": 40.0}
CALL_NS = 10.0


def infer_gemm(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """[M, K] × [K, N] → [M, N], either operand transposed."""
    a, b = required(inputs, 0), required(inputs, 1)
    m, k = a.shape[::-1] if node.attribute("transA", 0) else a.shape
    inner, n = b.shape[::-1] if node.attribute("transB", 0) else b.shape
    if inner != k:
        raise NotCompiled(f"inner dimensions {k} and {inner} differ")
    return [TensorType(a.dtype, (m, n))]


def lower_gemm(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One `gemm` step; alpha and beta are folded into the packed constants."""
    a, b, c = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    if node.attribute("transA", 0):
        raise NotCompiled("transA of a run-time matrix")
    weight = _constant(b, "B")
    weight = weight.T if node.attribute("transB", 0) else weight
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    bias: Array | None = None
    if c is not None:
        bias = _constant(c, "C")
        if bias.size not in (1, weight.shape[1]) or (bias.ndim == 2 and bias.shape[0] != 1):
            raise NotCompiled(f"C of shape {bias.shape}; compiled for one value per column")
        bias = np.broadcast_to((beta * bias.astype(np.float64)).reshape(-1), weight.shape[1:]).astype(weight.dtype)
    if alpha != 1.0:
        weight = (alpha * weight.astype(np.float64)).astype(weight.dtype)
    return [_product(node, a, weight, bias, a.shape[0], required(outputs, 0), target)]


def infer_matmul(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """NumPy's matmul rules."""
    a, b = required(inputs, 0), required(inputs, 1)
    if not a.shape or not b.shape:
        raise NotCompiled("a scalar operand")
    left = (1, *a.shape) if len(a.shape) == 1 else a.shape
    right = (*b.shape, 1) if len(b.shape) == 1 else b.shape
    if left[-1] != right[-2]:
        raise NotCompiled(f"inner dimensions {left[-1]} and {right[-2]} differ")
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    tail = left[-2:-1] * (len(a.shape) > 1) + right[-1:] * (len(b.shape) > 1)
    return [TensorType(a.dtype, (*batch, *tail))]


def lower_matmul(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One `gemm` step over all rows of A; B is a constant matrix."""
    a, bias = required(inputs, 0), optional(inputs, 2)
    weight = _constant(required(inputs, 1), "B")
    if weight.ndim != 2:
        raise NotCompiled(f"B of rank {weight.ndim}; compiled for a constant matrix")
    rows = math.prod(a.shape[:-1])
    return [_product(node, a, weight, None if bias is None else _constant(bias, "bias"), rows, required(outputs, 0), target)]


def _product(node: Node, a: Value, weight: Array, bias: Array | None, m: int, output: Value, target: Target) -> Step:
    dtype = float_only(a)
    if weight.dtype.name != dtype:
        raise NotCompiled(f"operands of {dtype} and {weight.dtype.name}")
    k, n = weight.shape
    rows, vectors = tile_shape(n, dtype, target)
    width = vectors * target.machine.lanes(dtype)
    vector = bias if bias is not None else np.zeros(n, weight.dtype)
    source = f"{node.outputs[0]}:{width}"
    low, high = _bounds(node)
    panels = -(-n // width)
    return Step(
        "gemm",
        {
            "dtype": dtype,
            "k": k,
            "rows": rows,
            "vectors": vectors,
            "activation": node.attribute("activation"),
            "low_bound": low,
            "high_bound": high,
        },
        (
            a,
            Packed(f"{source}:weight", lambda: pack_panels(weight, width)),
            Packed(f"{source}:bias", lambda: pad_vector(vector, width)),
            output,
        ),
        (m, n, k, n),
        -(-m // rows) * panels,
        CALL_NS + 2.0 * m * n * k / FLOPS_PER_NS[dtype],
        (3,),
    )


def tile_shape(n: int, dtype: str, target: Target) -> tuple[int, int]:
    """Rows and vectors of the register tile: as many accumulators as the register file holds beside the operands."""
    registers, lanes = target.machine.vector_registers, target.machine.lanes(dtype)
    vectors = target.engine.tile_vectors or min(4 if registers >= 32 else 2, max(1, -(-n // lanes)))
    rows = target.engine.tile_rows or max(1, min(12, (registers - vectors - 2) // vectors))
    return rows, vectors


def _bounds(node: Node) -> tuple[float, float]:
    activation = node.attribute("activation")
    if activation == "LeakyRelu":
        return float(node.attribute("leak", 0.01)), 0.0
    if activation == "Clip":
        return float(node.attribute("min", float("-inf"))), float(node.attribute("max", float("inf")))
    return 0.0, 0.0


def _constant(value: Value, what: str) -> Array:
    data: Array = known(value, what)
    if not value.constant:
        raise NotCompiled(f"{what} follows from the input's shape")
    return data


OPERATORS = {
    ("", "Gemm"): Operator(infer_gemm, lower_gemm),
    ("", "MatMul"): Operator(infer_matmul, lower_matmul),
}
