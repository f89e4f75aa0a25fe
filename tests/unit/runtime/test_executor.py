"""Nodes that are refused: fused ones run as the nodes that they came from, and one request's refusal changes no other request."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from models import model
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import openinfer
from openinfer.errors import InputError

F, H, I32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32
SQUARE, CUBE = [1, 2, 5, 5], [1, 2, 5, 5, 5]
Draw = Callable[..., np.ndarray]
Inputs = dict[str, np.ndarray]
N = helper.make_node


@pytest.fixture
def draw() -> Draw:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    generator = np.random.default_rng(seed)
    return lambda *shape, dtype=np.float32: generator.standard_normal(shape).astype(dtype)


def convolution(kind: int, shape: list[int], constants: Inputs) -> onnx.ModelProto:
    inputs = {"x": (kind, shape)} if "w" in constants else {"x": (kind, shape), "w": (kind, [3, 2, 3, 3])}
    return model(
        [N("Conv", ["x", "w"], ["c"]), N("Relu", ["c"], ["y"])], inputs, {"y": (kind, [1, 3] + [None] * (len(shape) - 2))}, constants
    )


def in_three_dimensions(draw: Draw) -> tuple[onnx.ModelProto, Inputs]:
    return convolution(F, CUBE, {"w": draw(3, 2, 3, 3, 3)}), {"x": draw(*CUBE)}


def in_half_precision(draw: Draw) -> tuple[onnx.ModelProto, Inputs]:
    return convolution(H, SQUARE, {"w": draw(3, 2, 3, 3, dtype=np.float16)}), {"x": draw(*SQUARE, dtype=np.float16)}


def with_weights_of_the_request(draw: Draw) -> tuple[onnx.ModelProto, Inputs]:
    return convolution(F, SQUARE, {}), {"x": draw(*SQUARE), "w": draw(3, 2, 3, 3)}


def a_half_precision_product(draw: Draw) -> tuple[onnx.ModelProto, Inputs]:
    constants = {"w": draw(4, 3, dtype=np.float16), "b": draw(3, dtype=np.float16)}
    nodes = [N("Gemm", ["x", "w", "b"], ["c"]), N("Relu", ["c"], ["y"])]
    return model(nodes, {"x": (H, ["n", 4])}, {"y": (H, ["n", 3])}, constants), {"x": draw(2, 4, dtype=np.float16)}


def a_transposed_convolution(draw: Draw) -> tuple[onnx.ModelProto, Inputs]:
    constants = {"w": draw(2, 2, 2, 2, 2), "low": np.float32(-0.5), "high": np.float32(0.5)}
    nodes = [N("ConvTranspose", ["x", "w"], ["c"]), N("Clip", ["c", "low", "high"], ["y"])]
    return model(nodes, {"x": (F, CUBE)}, {"y": (F, [1, 2, 6, 6, 6])}, constants), {"x": draw(*CUBE)}


def a_sum_of_integers(draw: Draw) -> tuple[onnx.ModelProto, Inputs]:
    constants = {"w": (9 * draw(4, 3)).astype(np.int32), "b": np.arange(3, dtype=np.int32)}
    nodes = [N("MatMul", ["x", "w"], ["c"]), N("Add", ["c", "b"], ["y"])]
    return model(nodes, {"x": (I32, ["n", 4])}, {"y": (I32, ["n", 3])}, constants), {"x": (9 * draw(2, 4)).astype(np.int32)}


CASES = (
    in_three_dimensions,
    in_half_precision,
    with_weights_of_the_request,
    a_half_precision_product,
    a_transposed_convolution,
    a_sum_of_integers,
)


@pytest.mark.parametrize("case", CASES)
def test_a_fused_node_that_is_refused_runs_as_what_it_came_from(case, draw: Draw) -> None:
    proto, inputs = case(draw)
    with openinfer.load(proto) as engine:
        answer = engine.run(inputs)["y"]
    exact = ReferenceEvaluator(proto).run(None, inputs)[0]
    assert answer.dtype == exact.dtype
    tolerance = 1e-2 if answer.dtype == np.float16 else 1e-5
    assert np.abs(answer.astype(np.float64) - exact).max() <= tolerance * np.abs(exact).max()


def test_the_activation_of_a_refused_node_stays_compiled(draw: Draw) -> None:
    proto, inputs = with_weights_of_the_request(draw)
    with openinfer.load(proto) as engine:
        engine.run(inputs)
        assert set(engine.statistics().fallback) == {"c"}


def test_a_request_that_fails_leaves_the_node_compiled(draw: Draw) -> None:
    proto = convolution(F, [1, 2, "h", "w"], {"w": draw(3, 2, 3, 3)})
    x, tiny = draw(1, 2, 9, 9), draw(1, 2, 1, 1)
    with openinfer.load(proto) as engine:
        before = engine.run({"x": x})["y"]
        with pytest.raises(InputError):
            engine.run({"x": tiny})
        with pytest.raises(InputError, match="bind"):
            engine.bind({"x": tiny})
        assert not engine.statistics().fallback
        bound = engine.bind({"x": x})
        bound()
        assert (bound.outputs["y"] == before).all()
        assert (engine.run({"x": x})["y"] == before).all()


def test_an_empty_request_changes_no_later_bit(draw: Draw) -> None:
    proto = model([N("MatMul", ["a", "b"], ["y"])], {"a": (F, ["n", 300]), "b": (F, [300, "q"])}, {"y": (F, ["n", "q"])})
    inputs = {"a": draw(5, 300), "b": draw(300, 7)}
    with openinfer.load(proto) as engine, openinfer.load(proto) as other:
        for _ in range(2):  # the second one finds its way without being refused again
            assert engine.run({"a": inputs["a"], "b": draw(300, 0)})["y"].shape == (5, 0)
        assert (engine.run(inputs)["y"] == other.run(inputs)["y"]).all()
        assert not engine.statistics().fallback


def test_an_operator_whose_first_output_is_absent_has_a_name(draw: Draw) -> None:
    proto = model(
        [N("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=2), N("LSTM", ["z", "v", "s"], ["", "k"], hidden_size=2)],
        {"x": (F, [3, 1, 2]), "z": (H, [3, 1, 2])},
        {"h": (F, [1, 1, 2]), "k": (H, [1, 1, 2])},
        {"w": draw(1, 8, 2), "r": draw(1, 8, 2), "v": draw(1, 8, 2, dtype=np.float16), "s": draw(1, 8, 2, dtype=np.float16)},
    )
    with openinfer.load(proto) as engine:
        assert set(engine.statistics().fallback) == {"k"}


@pytest.mark.parametrize("source", ["input", "constant", "twice"])
def test_outputs_of_the_fallback_are_the_caller_s_alone(source: str, draw: Draw) -> None:
    if source == "constant":
        nodes = [N("Identity", ["k"], ["y"]), N("NonZero", ["x"], ["z"]), N("Det", ["x"], ["d"])]
    else:
        nodes = [N("Det", ["x"], ["d"]), N("Squeeze", ["x"], ["y"]), N("NonZero" if source == "input" else "Squeeze", ["x"], ["z"])]
    kind = TensorProto.INT64 if source != "twice" else F
    proto = model(
        nodes,
        {"x": (F, [1, 3, 3])},
        {"y": (F, [None] * 2), "z": (kind, [None] * (3 if source == "twice" else 2)), "d": (F, [None])},
        {"k": draw(3, 3)},
    )
    x = draw(1, 3, 3)
    before = x.copy()
    with openinfer.load(proto) as engine:
        first = engine.run({"x": x})
        kept = {name: value.copy() for name, value in first.items()}
        first["y"][...] = np.nan
        assert (x == before).all()
        assert (first["z"] == kept["z"]).all()
        again = engine.run({"x": x})
        assert all((again[name] == kept[name]).all() for name in kept)
