"""Arrays that are not what the model takes: right, or refused by name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import openinfer
from openinfer.errors import InputError, PrecisionError
from openinfer.runtime.conversion import Conversions, loss

SEED = int(np.random.SeedSequence().generate_state(1)[0])
print(f"seed {SEED}")


def model(dtype: Any = np.float32) -> bytes:
    """y = x · weight + bias in `dtype`, six features in, three out."""
    rng = np.random.default_rng(SEED)
    weight, bias = rng.standard_normal((6, 3)).astype(dtype), rng.standard_normal(3).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    ports = [helper.make_tensor_value_info(n, kind, ["batch", s]) for n, s in (("x", 6), ("y", 3))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    constants = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "linear", ports[:1], ports[1:], constants)
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("form", "found"),
    [
        (lambda x: x.astype(np.float64), "float64"),
        (lambda x: x.astype(">f4"), "byte-swapped float32"),
        (lambda x: x.astype(">f8")[::2], "byte-swapped float64 with strides"),
        (np.asfortranarray, "float32 with strides"),
        (lambda x: np.round(x * 100).astype(np.int16), "int16"),
        (lambda x: x > 0, "bool"),
        (lambda x: np.repeat(x, 2, axis=1)[:, ::2], "float32 with strides"),
    ],
)
def test_other_forms_are_converted_and_reported(form: Callable[[Any], Any], found: str) -> None:
    x = np.random.default_rng(SEED).standard_normal((16, 6)).astype(np.float32)
    given = form(x)
    with openinfer.load(model()) as engine:
        expected = engine.run({"x": np.array(given, np.float32, order="C")})["y"]
        assert engine.conversions == ()
        for _ in range(2):
            assert (engine.run({"x": given})["y"] == expected).all()
        (seen,) = engine.conversions
    assert (seen.input, seen.found, seen.taken, seen.arrays) == ("x", found, "float32", 2)
    assert seen.error == (loss(given, np.dtype(np.float32)) if given.dtype.kind == "f" else 0)


def test_a_double_model_takes_single_precision_exactly() -> None:
    x = np.random.default_rng(SEED).standard_normal((5, 6)).astype(np.float32)
    with openinfer.load(model(np.float64)) as engine:
        found = engine.run({"x": x})["y"]
        assert found.dtype == np.float64 and (found == engine.run({"x": x.astype(np.float64)})["y"]).all()
        assert [(c.found, c.error) for c in engine.conversions] == [("float32", 0.0)]


def test_a_trap_that_costs_accuracy_is_refused() -> None:
    """Time stamps: in single precision the classes cannot be told apart, so that a model that is fed them rounded guesses."""
    rng = np.random.default_rng(SEED)
    label = rng.integers(0, 2, 2000)
    x = np.column_stack([1.6e9 + 30 * label + rng.normal(0, 5, 2000), rng.standard_normal((2000, 5))])

    def accuracy(values: Any) -> float:
        return float(np.mean((values > 1.6e9 + 15) == label))

    assert accuracy(x[:, 0]) - accuracy(x[:, 0].astype(np.float32).astype(np.float64)) > 0.15
    offset = x - np.array([1.6e9, 0, 0, 0, 0, 0])
    with openinfer.load(model()) as engine:
        with pytest.raises(PrecisionError, match=r"input 'x': found float64 that float32 would round by .* subtract the offset"):
            engine.run({"x": x})
        engine.run({"x": offset})
        assert 0 < engine.conversions[0].error < 1e-6
    with openinfer.load(model(), {"engine": {"conversion_tolerance": 1.0}}) as engine:
        engine.run({"x": x})
        assert engine.conversions[0].error > 0.01


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.full((2, 6), 1e300), "float32"),
        (np.full((2, 6), 2**24 + 1), "float32"),
        (np.full((2, 6), -(2**53) - 1), "float64"),
        (np.full((2, 6), 300), "uint8"),
        (np.full((2, 6), -1), "uint8"),
        (np.full((2, 6), 2**63, np.uint64), "int64"),
        (np.full((2, 6), 0.5), "int64"),
        (np.full((2, 6), 1), "bool"),
    ],
)
def test_values_that_do_not_fit_are_refused(given: Any, wanted: str) -> None:
    conversions = Conversions(1e-3)
    with pytest.raises(InputError, match=f"input 'x': found {given.dtype}, allowed: {wanted}; "):
        conversions.fit(given, "x", wanted)
    assert conversions.all() == ()


def test_special_values_stay() -> None:
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, 1.5]])
    found = Conversions(1e-3).fit(np.repeat(x, 3, axis=0), "x", "float32")
    assert np.isnan(found[:, 0]).all() and (found[:, 1] == np.inf).all() and (found[:, 2] == -np.inf).all()
    assert np.signbit(found[:, 3]).all() and (found[:, 4] == 1.5).all()


def test_the_loss_of_empty_single_and_varying_values() -> None:
    single = np.dtype(np.float32)
    assert loss(np.zeros((0, 4)), single) == 0
    assert loss(np.array(0.1), single) < 1e-7
    assert loss(np.array([1.6e9 + 0.5]), single) < 1e-7  # nothing to compare with
    assert loss(np.array([[1.6e9 + 0.5], [1.6e9 + 1.0]]), single) > 0.9


def test_many_threads_count_every_array() -> None:
    conversions, x = Conversions(1e-3), np.random.default_rng(SEED).standard_normal((4, 3))
    threads = [threading.Thread(target=lambda: [conversions.fit(x, "x", "float32") for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert conversions.all()[0].arrays == 200


@pytest.mark.parametrize(("shape", "refused"), [(["n"], True), ([4], False)])
def test_where_the_only_axis_counts_requests_they_have_one_feature(shape, refused) -> None:
    stamps = 1.6e9 + np.array([0.0, 0.5, 1.0, 1.5])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy"]
    node, offset = helper.make_node("Sub", ["x", "offset"], ["y"]), numpy_helper.from_array(np.float32(1.6e9), "offset")
    graph = helper.make_graph([node], "stamps", ports[:1], ports[1:], [offset])
    with openinfer.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)) as engine:
        if refused:
            with pytest.raises(PrecisionError, match="spread"):
                engine.run({"x": stamps})
        else:  # one request of four features, measured against their magnitude
            engine.run({"x": stamps})
