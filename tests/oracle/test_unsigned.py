"""Whole numbers beyond 2 ** 53, which float64 does not hold, against NumPy's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import generator
from onnx import TensorProto, helper

import openinfer

EXPECTED = {
    "Div": lambda a, b: a // b,
    "Mod": lambda a, b: a % b,
    "LEFT": lambda a, b: a << (b % np.uint64(64)),
    "RIGHT": lambda a, b: a >> (b % np.uint64(64)),
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
}
REDUCED = {"ReduceMax": np.max, "ReduceMin": np.min, "ReduceSum": np.sum, "ReduceProd": np.prod}


def tensor(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.UINT64, shape)


def compiled(node, inputs, shape, opset):
    graph = helper.make_graph([node], "g", [tensor(name, array.shape) for name, array in inputs.items()], [tensor("y", shape)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    with openinfer.load(made) as engine:
        found = engine.run(inputs)["y"]
        assert not engine.statistics().fallback
    return found


def drawn(rng, *shape):
    return rng.integers(2**60, 2**64, shape, np.uint64, endpoint=False)


@pytest.mark.parametrize("name", EXPECTED)
def test_binary_operators_keep_every_digit(name):
    rng, shift = generator(), name in ("LEFT", "RIGHT")
    a = drawn(rng, 37)
    b = rng.integers(0, 64, 37, np.uint64) if shift else drawn(rng, 37) >> rng.integers(0, 60, 37, np.uint64)
    b = b if shift else np.maximum(b, np.uint64(1))
    node = helper.make_node("BitShift", ["a", "b"], ["y"], direction=name) if shift else helper.make_node(name, ["a", "b"], ["y"])
    np.testing.assert_array_equal(compiled(node, {"a": a, "b": b}, (37,), 17), EXPECTED[name](a, b))


def test_nothing_is_left_of_a_shift_by_all_bits():
    a, b = drawn(generator(), 3), np.array([64, 65, 2**63], np.uint64)
    for direction in ("LEFT", "RIGHT"):
        node = helper.make_node("BitShift", ["a", "b"], ["y"], direction=direction)
        np.testing.assert_array_equal(compiled(node, {"a": a, "b": b}, (3,), 17), np.zeros(3, np.uint64))


def test_powers_keep_every_digit():
    a = drawn(generator(), 9) >> np.uint64(3)
    graph = helper.make_graph(
        [helper.make_node("Pow", ["a", "b"], ["y"])],
        "g",
        [tensor("a", (9,))],
        [tensor("y", (9,))],
        [helper.make_tensor("b", TensorProto.INT64, (1,), [1])],
    )
    with openinfer.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)) as engine:
        np.testing.assert_array_equal(engine.run({"a": a})["y"], a)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", REDUCED)
def test_reductions_keep_every_digit(name, axis):
    a = drawn(generator(), 5, 7)
    node = helper.make_node(name, ["a"], ["y"], axes=[axis], keepdims=0)
    if name == "ReduceSum":
        a >>= np.uint64(4)
    expected = REDUCED[name](a, axis=axis)
    np.testing.assert_array_equal(compiled(node, {"a": a}, expected.shape, 12), expected)
