"""The float64 oracle of a float32 model: every float tensor widened, evaluated by `onnx.reference`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from openinfer.ir.graph import Array


def widen(model: Any) -> Any:
    """A copy of the model in float64: inputs, outputs, weights, constants and casts. Operators that fix their own types are left as
    they are.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        _widen_tensor(tensor)
    for value in (*wide.graph.input, *wide.graph.output, *wide.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in wide.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    return wide


def largest(values: Array) -> float:
    """The largest finite magnitude, or 1 where there is none: what errors are measured against."""
    wide = np.abs(values[np.isfinite(values)].astype(np.float64)) if values.dtype.kind in "fiu" else np.zeros(0)
    return float(wide.max(initial=0.0)) or 1.0


def discrepancy(found: Array, expected: Array, scale: float | None = None) -> float:
    """max |found - expected| ÷ `scale` (default: `largest` of expected). Infinite where NaN and infinities lie elsewhere, where shapes
    differ, and where anything but floats is not equal.
    """
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(found[~finite], expected[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return float("inf")
    difference = np.abs(found[finite].astype(np.float64) - expected[finite])
    return float(difference.max(initial=0.0)) / (scale or largest(expected))


class Reference:
    """A model under `onnx.reference`, read once and run many times."""

    def __init__(self, model: Any) -> None:
        from onnx.reference import ReferenceEvaluator

        self._outputs = [output.name for output in model.graph.output]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._evaluator = ReferenceEvaluator(model)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        """Outputs by name; float32 inputs are widened first."""
        feeds = {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in inputs.items()}
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            results = self._evaluator.run(None, feeds)
        return dict(zip(self._outputs, results, strict=True))


def reference(model: Any, inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Outputs by name, of one request; see `Reference`."""
    return Reference(model)(inputs)


def _widen_tensor(tensor: Any) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
