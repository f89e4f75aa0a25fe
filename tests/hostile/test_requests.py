"""Requests, and models, whose operands do not fit each other: a named error or the fallback's answer, never memory that is not theirs.

Each case runs in a child process, so that a crash fails one test and nothing else.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import openinfer
from openinfer.errors import OpenInferError

node = helper.make_node
FLOAT, DOUBLE, INT32, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64
F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64
ELEMENTS = {F32: FLOAT, F64: DOUBLE, I32: INT32, I64: INT64}
FOUR = ("p", "q", "r", "s")


def ones(*shape, kind=F32):
    return np.ones(shape, kind)


def whole(*values):
    return np.array(values, I64)


def case(operator, request, stored=None, rank=None):
    """`operator` over the inputs of `request`, each (declared shape, array), and the `stored` constants. Outputs have the `rank` and the
    dtype of the first input unless said otherwise.
    """
    inputs = [helper.make_tensor_value_info(name, ELEMENTS[array.dtype.type], shape) for name, (shape, array) in request.items()]
    first = next(iter(request.values()))[1]
    made = [
        helper.make_tensor_value_info(name, ELEMENTS[first.dtype.type], [f"{name}{axis}" for axis in range(rank or first.ndim)])
        for name in operator.output
        if name
    ]
    constants = [helper.make_tensor(name, ELEMENTS[a.dtype.type], a.shape, a.reshape(-1)) for name, a in (stored or {}).items()]
    graph = helper.make_graph([operator], "g", inputs, made, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model, {name: array for name, (_, array) in request.items()}


def conv(op="Conv", x=None, w=None, b=None, **attributes):
    x = ones(1, 4, 16, 16) if x is None else x
    stored = {"w": ones(4, 1, 3, 3) if w is None else w}
    if b is not None:
        stored["b"] = b
    return case(node(op, ["x", *stored], ["y"], **attributes), {"x": (x.shape, x)}, stored)


def lstm(position, shape, array, layout=0):
    inputs = ["x", "w", "r", "", "", "", ""]
    inputs[position] = "state"
    operator = node("LSTM", inputs, ["", "y"], hidden_size=5, layout=layout)
    return case(operator, {"x": (("t", "b", 3), ones(2, 4, 3)), "state": (shape, array)}, {"w": ones(1, 20, 3), "r": ones(1, 20, 5)})


# Name → a model and a request that must end in an `OpenInferError`.
REFUSED = {
    "concat rows": lambda: case(
        node("Concat", ["a", "b"], ["y"], axis=1), {"a": ((None, 3), ones(1, 3)), "b": ((None, 3), ones(2_000_000, 3))}
    ),
    "concat axis": lambda: case(node("Concat", ["a", "a"], ["y"], axis=7), {"a": (("n", 3), ones(2, 3))}),
    "gemm c": lambda: case(
        node("Gemm", ["a", "b", "c"], ["y"]), {"a": ((2, 4), ones(2, 4)), "b": ((4, 5), ones(4, 5)), "c": (("k",), ones(3))}
    ),
    "clip bound": lambda: case(node("Clip", ["x", "low"], ["y"]), {"x": (("n", 8), ones(2, 8)), "low": (("k",), ones(2))}),
    "add": lambda: case(node("Add", ["x", "b"], ["y"]), {"x": (("n", 8), ones(2, 8)), "b": (("k",), ones(3))}),
    "batch norm": lambda: case(
        node("BatchNormalization", ["x", *"smbv"], ["y"]), {"x": (("n", "c", 2), ones(1, 5, 2))}, {name: ones(3) for name in "smbv"}
    ),
    "initial h": lambda: lstm(5, (1, "c", 5), ones(1, 3, 5)),
    "initial c": lambda: lstm(6, (1, "c", 5), ones(1, 3, 5)),
    "conv bias": lambda: conv(w=ones(8, 4, 3, 3), b=ones(3)),
    "conv stride": lambda: conv(x=ones(1, 1, 3, 3), w=ones(2, 1, 5, 5), strides=[-1, -1]),
    "transposed stride": lambda: conv("ConvTranspose", x=ones(1, 1, 3, 3), w=ones(1, 2, 3, 3), strides=[0, 0]),
    "pool stride": lambda: case(node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[0, 0]), {"x": (FOUR, ones(1, 1, 4, 4))}),
    "transpose": lambda: case(node("Transpose", ["x"], ["y"], perm=[0, 0]), {"x": ((300, 2), ones(300, 2))}),
    "one hot": lambda: case(
        node("OneHot", ["x", "d", "v"], ["y"]), {"x": ((3,), whole(0, 1, 2)), "v": (("k",), whole(1))}, {"d": np.array(4, I64)}, rank=2
    ),
    "unsqueeze": lambda: case(node("Unsqueeze", ["x", "a"], ["y"]), {"x": ((4,), ones(4))}, {"a": whole(0, 0)}, rank=3),
    "tile": lambda: case(node("Tile", ["x", "r"], ["y"]), {"x": ((2, 3), ones(2, 3))}, {"r": whole(-1, -1)}),
    "scatter": lambda: case(
        node("ScatterElements", ["x", "i", "u"], ["y"], reduction="foo"),
        {"x": ((3,), ones(3)), "i": ((2,), whole(0, 1)), "u": ((2,), ones(2))},
    ),
    "softmax axis": lambda: case(node("Softmax", ["x"], ["y"], axis=5), {"x": (("n", 3), ones(2, 3))}),
    "gather axis": lambda: case(node("Gather", ["x", "i"], ["y"], axis=5), {"x": (("n", 3), ones(2, 3)), "i": ((1,), whole(0))}),
    "reduce axis": lambda: case(node("ReduceMax", ["x"], ["y"], axes=[5]), {"x": (("n", 3), ones(2, 3))}),
    "matrix": lambda: case(node("MatMul", ["a", "b"], ["y"]), {"a": (("n", "k"), ones(2, 4)), "b": (("l", 5), ones(3, 5))}),
}
# Name → a model and a request that the fallback may answer in its own way.
ANSWERED = {
    "split beyond": lambda: case(
        node("Split", ["x", "s"], ["a", "b"], axis=1), {"x": (("n", "c"), ones(1, 4))}, {"s": whole(3, 3_000_000)}
    ),
    "split negative": lambda: case(
        node("Split", ["x", "s"], ["a", "b"], axis=0), {"x": ((4,), ones(4))}, {"s": whole(-4_000_000, 4_000_004)}
    ),
    "transposed bias": lambda: conv("ConvTranspose", w=ones(4, 3, 3, 3), b=ones(5)),
    "concat dtypes": lambda: case(node("Concat", ["a", "b"], ["y"], axis=0), {"a": (("n",), ones(2)), "b": (("m",), ones(3, kind=F64))}),
    "sub dtypes": lambda: case(node("Sub", ["a", "b"], ["y"]), {"a": (("n",), ones(3)), "b": (("n",), ones(3, kind=F64))}),
    "pad value": lambda: case(
        node("Pad", ["x", "p", "v"], ["y"]), {"x": (("n",), ones(3, kind=F64)), "v": ((1,), ones(1))}, {"p": whole(1, 1)}
    ),
    "one bias for all filters": lambda: conv(group=4, pads=[1, 1, 1, 1], b=ones(1)),
    "narrow weights": lambda: conv(x=ones(1, 4, 16, 16, kind=F64), group=4, pads=[1, 1, 1, 1]),
    "conv dilation": lambda: conv(x=ones(1, 1, 6, 6), w=ones(20, 1, 3, 3), dilations=[-1, -1]),
    "sequence lengths": lambda: lstm(4, ("c",), np.array([2], I32)),
    "initial h of another dtype": lambda: lstm(5, (1, "b", 5), ones(1, 4, 5, kind=F64)),
    "flatten axis": lambda: case(node("Flatten", ["x"], ["y"], axis=5), {"x": (("n", 3), ones(2, 3))}),
    "slice axis": lambda: case(
        node("Slice", ["x", "s", "e", "a"], ["y"]), {"x": (("n", 3), ones(2, 3))}, {"s": whole(0), "e": whole(9), "a": whole(5)}
    ),
    "depth to space": lambda: case(node("DepthToSpace", ["x"], ["y"], blocksize=2), {"x": (FOUR, ones(1, 3, 2, 2))}),
}


@pytest.mark.parametrize("name", [*REFUSED, *ANSWERED])
def test_operands_that_do_not_fit_are_refused_or_left_to_the_fallback(name):
    child = subprocess.run([sys.executable, "-W", "ignore", __file__, name], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-2000:]
    said = child.stdout.splitlines()[-1]
    assert said.startswith("refused") or (name in ANSWERED and said == "on the fallback"), said


def run(name: str) -> str:
    """How the engine ends the case `name`."""
    model, request = {**REFUSED, **ANSWERED}[name]()
    onnx.checker.check_model(model)
    try:
        with openinfer.load(model) as engine:
            engine.run(request)
            return "on the fallback" if engine.statistics().fallback else "answered by compiled code"
    except OpenInferError as error:
        return f"refused: {error}"


if __name__ == "__main__":
    print(run(sys.argv[1]))
