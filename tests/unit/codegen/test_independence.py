"""Which graphs are proved to keep the rows of a batch apart, and which are not."""

from __future__ import annotations

import numpy as np
import pytest
from models import mlp, model
from onnx import TensorProto, helper

from openinfer.codegen.independence import keeps_rows_apart
from openinfer.frontend.onnx_model import read
from openinfer.ir.graph import TensorType
from openinfer.ops.registry import OPERATORS
from openinfer.ops.rows import RULES
from openinfer.runtime.fallback import Fallback

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def node(op: str, inputs: str, outputs: str, **attributes):
    """`-` stands for an absent input."""
    return helper.make_node(op, ["" if name == "-" else name for name in inputs.split()], outputs.split(), **attributes)


def proved(nodes, x=("n", 6), constants=None, opset=17, y=("n", "k")) -> bool:
    return of(model(nodes, {"x": (FLOAT, list(x))}, {"y": (FLOAT, list(y))}, constants, opset))


def of(proto) -> bool:
    graph = read(proto)
    kinds = {i.name: TensorType(i.dtype, (1, *[int(d) for d in i.shape[1:]])) for i in graph.inputs}
    return keeps_rows_apart(graph, kinds, Fallback().evaluate)


def weights(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


LSTM = {"w": weights(1, 32, 6), "r": weights(1, 32, 8)}

APART = {
    "a softmax over the columns": ([node("Softmax", "x", "y", axis=1)], {}),
    "a mean over the columns, kept": ([node("ReduceMean", "x", "m", axes=[1]), node("Sub", "x m", "y")], {}),
    "a product with weights": ([node("MatMul", "x w", "y")], {"constants": {"w": weights(6, 4)}}),
    "images": ([node("Conv", "x w", "y")], {"x": ("n", 2, 8, 8), "constants": {"w": weights(3, 2, 3, 3)}, "y": "nabc"}),
    "sequences along axis 1": (
        [node("Transpose", "x", "t", perm=[1, 0, 2]), node("LSTM", "t w r", "s h", hidden_size=8), node("Squeeze", "h zero", "y")],
        {"x": ("n", 5, 6), "constants": {**LSTM, "zero": ints(0)}},
    ),
    "states that are made for each row": (
        [
            node("Transpose", "x", "t", perm=[1, 0, 2]),
            node("Shape", "x", "shape"),
            node("Gather", "shape zero", "count"),
            node("Concat", "one count eight", "sizes", axis=0),
            node("ConstantOfShape", "sizes", "h0"),
            node("LSTM", "t w r b - h0 h0", "s h", hidden_size=8),
            node("Squeeze", "h zero", "y"),
        ],
        {"x": ("n", 5, 6), "constants": {**LSTM, "b": weights(1, 64), "zero": ints(0), "one": ints(1), "eight": ints(8)}},
    ),
    "steps joined with rows and taken apart": (
        [node("Reshape", "x flat", "f"), node("MatMul", "f w", "g"), node("Reshape", "g whole", "y")],
        {"x": ("n", 5, 6), "constants": {"flat": ints(-1, 6), "w": weights(6, 4), "whole": ints(-1, 5, 4)}, "y": "nab"},
    ),
    "a table": (
        [node("Cast", "x", "i", to=INT64), node("Gather", "table i", "e"), node("Reshape", "e flat", "y")],
        {"constants": {"table": weights(9, 3), "flat": ints(0, -1)}},
    ),
    "products of a row with itself": (
        [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "y")],
        {"x": ("n", 5, 6), "y": "nab"},
    ),
}

MIXED = {
    "the largest of the batch, where it is large": (
        [node("ReduceMax", "x", "m", keepdims=0), node("Clip", "m low", "c"), node("Mul", "x c", "y")],
        {"constants": {"low": np.float32(100)}},
    ),
    "a softmax down the batch": ([node("Softmax", "x", "y", axis=0)], {}),
    "a mean over the batch": ([node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")], {}),
    "the number of rows as a factor": (
        [node("Shape", "x", "s"), node("Gather", "s zero", "c"), node("Cast", "c", "f", to=FLOAT), node("Mul", "x f", "y")],
        {"constants": {"zero": ints(0)}},
    ),
    "a smaller number of rows as a factor": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "c"),
            node("Min", "c two", "d"),
            node("Cast", "d", "f", to=FLOAT),
            node("Mul", "x f", "y"),
        ],
        {"constants": {"zero": ints(0), "two": ints(2)}},
    ),
    "a tenth of the number of rows as a length": (
        [
            node("Shape", "x", "s"),
            node("Gather", "s zero", "c"),
            node("Cast", "c", "f", to=FLOAT),
            node("Mul", "f tenth", "t"),
            node("Cast", "t", "d", to=INT64),
            node("Add", "d one", "e"),
            node("Concat", "e e", "sizes", axis=0),
            node("Expand", "number sizes", "many"),
            node("ReduceSum", "many", "sum", keepdims=0),
            node("Mul", "x sum", "y"),
        ],
        {"constants": {"zero": ints(0), "one": ints(1), "tenth": np.float32([0.1]), "number": weights(1, 1)}},
    ),
    "the order of the rows": (
        [node("Slice", "x a b c d", "y")],
        {"constants": {"a": ints(-1), "b": ints(-99), "c": ints(0), "d": ints(-1)}},
    ),
    "the first thousand rows": ([node("Slice", "x a b c", "y")], {"constants": {"a": ints(0), "b": ints(1000), "c": ints(0)}}),
    "the first row for all": ([node("Gather", "x zero", "f", axis=0), node("Add", "x f", "y")], {"constants": {"zero": ints(0)}}),
    "sums down the batch": ([node("CumSum", "x zero", "y")], {"constants": {"zero": ints(0)}}),
    "rows against rows": ([node("Transpose", "x", "t"), node("MatMul", "x t", "p"), node("MatMul", "p x", "y")], {}),
    "rows cut elsewhere": (
        [node("Reshape", "x two", "f"), node("Reshape", "f six", "y")],
        {"constants": {"two": ints(2, -1), "six": ints(-1, 6)}},
    ),
    "columns among rows": ([node("Transpose", "x", "t"), node("Reshape", "t six", "y")], {"constants": {"six": ints(-1, 6)}}),
    "the batch as the time of an LSTM": (
        [node("LSTM", "x w r", "s h", hidden_size=8), node("Squeeze", "s one", "y")],
        {"x": ("n", 5, 6), "constants": {**LSTM, "one": ints(1)}, "y": "nab"},
    ),
    "a flattened softmax of old opsets": ([node("Softmax", "x", "y", axis=0)], {"opset": 11}),
    "an output of another kind": ([node("Transpose", "x", "y")], {}),
}


@pytest.mark.parametrize("name", APART)
def test_rows_that_are_kept_apart_are_proved(name):
    nodes, options = APART[name]
    assert proved(nodes, **options)


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_meet_are_never_proved(name):
    nodes, options = MIXED[name]
    assert not proved(nodes, **options)


def test_a_perceptron_is_proved():
    assert of(mlp())


def test_every_rule_is_of_a_compiled_operator():
    assert not RULES.keys() - OPERATORS.keys()
    # What has no rule is never joined; whoever adds an operator decides.
    assert {op for _, op in OPERATORS.keys() - RULES.keys()} == {"EyeLike", "Range", "ScatterND"}
