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
    if others or len(row) != 1 or [node.op_type for node in proto.graph.node] != ["TreeEnsembleRegressor"]:
        raise InputError("LightGBM's single-row call takes one row for one TreeEnsembleRegressor")
    try:
        import lightgbm
    except ImportError:
        raise MissingExtraError("lightgbm is not installed; pip install 'openinfer[bench]'") from None
    return [_single_row_fast(lightgbm, lightgbm_text(proto, row.shape[1]), name, row)]


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
