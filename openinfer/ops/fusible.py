"""Which activations each producer's kernel applies in its epilogue; the fusion pass is given this table."""

from __future__ import annotations

from openinfer.ops import conv, dense

ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Conv": conv.FUSIBLE_ACTIVATIONS,
    "ConvTranspose": conv.FUSIBLE_ACTIVATIONS,
    "Gemm": dense.FUSIBLE_ACTIVATIONS,
    "MatMul": dense.FUSIBLE_ACTIVATIONS,
}
