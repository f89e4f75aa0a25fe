"""BatchNormalization at inference, as x · scale + shift per channel; the two are computed in float64 at load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operand, Operator, Packed, Step, Target, Value, float_only, required
from openinfer.ops.conv_geometry import constant
from openinfer.ops.elementwise import step


def infer(node: Node, inputs: Sequence[Value | None]) -> list[TensorType]:
    """The input's type."""
    x = required(inputs, 0)
    float_only(x)
    if node.version < 9 or node.attribute("training_mode", 0) or len(node.outputs) > 1 or len(x.shape) < 2:
        raise NotCompiled("training mode")
    return [x.type]


def lower(node: Node, inputs: Sequence[Value | None], outputs: Sequence[Value | None], target: Target) -> list[Step | Alias]:
    """One elementwise step."""
    x = required(inputs, 0)
    for i in range(1, 5):
        if required(inputs, i).shape != x.shape[1:2]:
            raise NotCompiled(f"parameters of shape {required(inputs, i).shape} for {x.shape[1]} channels")
    scale, shift, mean, variance = (constant(required(inputs, i)).astype(np.float64) for i in range(1, 5))
    factor = scale / np.sqrt(variance + node.attribute("epsilon", 1e-5))
    shape = (len(factor), *[1] * (len(x.shape) - 2))
    parameters = {"scale": factor, "shift": shift - mean * factor}

    def packed(name: str) -> Packed:
        def make() -> Array:
            array: Array = parameters[name].astype(x.dtype).reshape(shape)
            return array

        return Packed(f"{node.outputs[0]}:{name}", make)

    kind = TensorType(x.dtype, shape)
    operands: list[tuple[Operand, TensorType, bool]] = [
        (x, x.type, x.constant),
        (packed("scale"), kind, True),
        (packed("shift"), kind, True),
    ]
    return [step(("Add", ("Mul", 0, 1), 2), operands, x.dtype, required(outputs, 0))]


OPERATORS = {("", "BatchNormalization"): Operator(infer, lower)}
