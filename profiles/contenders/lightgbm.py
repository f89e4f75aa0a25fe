"""LightGBM's C single-row-fast call on the trees of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from openinfer.profiles.contenders._base import Contender

from openinfer.errors import InputError, MissingExtraError
from openinfer.ir.graph import Array


def contenders(model: str, first: Mapping[str, Array]) -> list[Contender]:
    """One side. `InputError` for other models than trees of one output, and for batches; `MissingExtraError` without the package."""
    import onnx
    from openinfer.workloads.lightgbm_text import lightgbm_text

    (name, row), *others = first.items()
    proto = onnx.load(model)
    if others or row.dtype != np.float32 or row.ndim != 2 or len(row) != 1 or not _same_trees(proto.graph):
        raise InputError(
            "LightGBM's single-row call takes one float32 row for one TreeEnsembleRegressor of one target: sums of trees with <= nodes, "
            "without base value or post_transform"
        )
    try:
        import lightgbm
    except ImportError:
        raise MissingExtraError("lightgbm is not installed; pip install 'openinfer[bench]'") from None
    return [_single_row_fast(lightgbm, lightgbm_text(proto, row.shape[1]), name, row)]


def _same_trees(graph: Any) -> bool:
    """Whether LightGBM's own format says all that the model says."""
    if [node.op_type for node in graph.node] != ["TreeEnsembleRegressor"]:
        return False
    from onnx.helper import get_attribute_value

    found = {attribute.name: get_attribute_value(attribute) for attribute in graph.node[0].attribute}
    return (
        found.get("n_targets", 1) == 1
        and found.get("aggregate_function", b"SUM") == b"SUM"
        and found.get("post_transform", b"NONE") == b"NONE"
        and not any(found.get("base_values", []))
        and set(found.get("nodes_modes", [])) <= {b"BRANCH_LEQ", b"LEAF"}
        and not any(name.endswith("_as_tensor") for name in found)
    )


def _single_row_fast(lightgbm: Any, text: str, name: str, row: Array) -> Contender:
    import ctypes

    library = lightgbm.basic._LIB
    booster = lightgbm.Booster(model_str=text)
    mine, out, length, fast = row[0].copy(), np.empty(1), ctypes.c_int64(), ctypes.c_void_p()
    # Data of C_API_DTYPE_FLOAT32 (0), a normal prediction (0), all iterations.
    status = library.LGBM_BoosterPredictForMatSingleRowFastInit(
        booster._handle,
        ctypes.c_int(0),
        ctypes.c_int(0),
        ctypes.c_int(-1),
        ctypes.c_int(0),
        ctypes.c_int32(mine.size),
        ctypes.c_char_p(b"num_threads=1"),
        ctypes.byref(fast),
    )
    if status:
        raise InputError(f"LightGBM refuses the model: {library.LGBM_GetLastError()}")
    arguments = fast, ctypes.c_void_p(mine.ctypes.data), ctypes.byref(length), ctypes.c_void_p(out.ctypes.data)
    predict = library.LGBM_BoosterPredictForMatSingleRowFast

    def call() -> object:
        return predict(*arguments)

    def prepare(inputs: Mapping[str, Array]) -> object:
        mine[:] = inputs[name][0]
        return booster

    return Contender("lightgbm single-row-fast", "bound", prepare, call)
