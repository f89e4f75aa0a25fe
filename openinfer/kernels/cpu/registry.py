"""Kernel name → factory. A lowering names a kernel; code generation resolves the name here, so that `ops` never imports Numba."""

from __future__ import annotations

import importlib
from typing import Any

MODULES: dict[str, str] = {
    "conv": "conv",
    "conv_depthwise": "conv_depthwise",
    "conv_winograd": "conv_winograd",
    "conv_filters": "conv_filters",
    "normalize": "normalize",
    "recurrent": "recurrent",
    "reduce": "reduce",
    "reduce_columns": "reduce",
    "log_sum_exp": "reduce",
    "arg_extreme": "reduce",
    "pool": "pool",
    "resize_axis": "resize",
    "take_axis": "resize",
    "phase_copy": "conv",
    "trees": "trees",
    "gather": "movement",
    "fill": "movement",
    "strided_copy": "movement",
    "elementwise": "elementwise",
    "copy": "copy",
    "gemm": "dense",
    "product": "product",
    "pack_matrix": "product",
    "softmax": "softmax",
    "logsoftmax": "logsoftmax",
    "hardmax": "hardmax",
    "scan": "scan",
    "top": "scan",
    "gather_elements": "indexing",
    "scatter_elements": "indexing",
    "gather_slices": "indexing",
    "scatter_slices": "indexing",
    "one_hot": "indexing",
    # kernel name: module of openinfer.kernels.cpu whose function of the same name is the factory
}

# Kernels that return how many indices lay outside their axis. They run to their end all the same, and so does the program, which fails
# after the last step: a thread that left in the middle would keep the others waiting at the barrier.
INDEXED = frozenset({"gather", "gather_elements", "gather_slices", "scatter_elements", "scatter_slices"})


def make(kernel: str, statics: dict[str, Any]) -> Any:
    """The Numba dispatcher of `kernel` for these statics."""
    module = importlib.import_module(f"openinfer.kernels.cpu.{MODULES[kernel]}")
    return getattr(module, kernel)(**statics)
