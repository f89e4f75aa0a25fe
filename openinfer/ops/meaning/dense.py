"""MatMul, Gemm and Einsum: the namespace's own products."""

from __future__ import annotations

from typing import Any

from openinfer.ops.meaning._base import Call, Meaning, Meanings


def _matmul(call: Call) -> list[Any]:
    """NumPy's rules; a third input is a bias that a pass has fused."""
    y, bias = call.xp.asarray(call.xp.matmul(call.array(0), call.array(1))), call.optional(2)
    return [y if bias is None else y + bias]


def _gemm(call: Call) -> list[Any]:
    a, b, c = call.array(0), call.array(1), call.optional(2)
    y = call.xp.matmul(a.T if call.attribute("transA", 0) else a, b.T if call.attribute("transB", 0) else b)
    alpha, beta = (y.dtype.type(call.attribute(name, 1.0)) for name in ("alpha", "beta"))
    y = y if alpha == 1 else y * alpha
    return [y if c is None else y + (c if beta == 1 else c * beta)]


def _einsum(call: Call) -> list[Any]:
    arrays = [call.array(position) for position in range(len(call.inputs))]
    return [call.xp.asarray(call.xp.einsum(call.attribute("equation"), *arrays))]


MEANINGS: Meanings = {
    ("", "MatMul"): Meaning(_matmul),
    ("", "Gemm"): Meaning(_gemm),
    ("", "Einsum"): Meaning(_einsum),
}
