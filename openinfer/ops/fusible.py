"""Which activations each producer's kernel applies in its epilogue; the fusion pass is given this table."""

from __future__ import annotations

from openinfer.ops import dense

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Gemm": dense.FUSIBLE_ACTIVATIONS,
    "MatMul": dense.FUSIBLE_ACTIVATIONS,
}
