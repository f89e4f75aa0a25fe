"""Calibration: the layer that float32 hurts stays in float64, nothing else does; the engine runs the model in float32 with it alone."""

from __future__ import annotations

import gc

import numpy as np
import onnx
import pytest
from models import mlp, model
from onnx import TensorProto, helper
from openinfer.tuner.calibrate import _fewest, table

import openinfer
from openinfer.config import Config
from openinfer.errors import ConfigError, InputError, PrecisionError
from openinfer.frontend.float64 import discrepancy, reference

OFFSET = 1.6e9
D = TensorProto.DOUBLE


def offset_model(generator: np.random.Generator, then: int = 2) -> onnx.ModelProto:
    """Subtracts a large offset first; dense layers follow."""
    nodes, constants, value = [helper.make_node("Sub", ["x", "offset"], ["centred"])], {"offset": np.full(6, OFFSET)}, "centred"
    for index in range(then):
        constants |= {f"w{index}": generator.standard_normal((6, 6)), f"b{index}": generator.standard_normal(6)}
        nodes += [
            helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [f"h{index}"]),
            helper.make_node("Tanh", [f"h{index}"], [f"t{index}"]),
        ]
        value = f"t{index}"
    nodes.append(helper.make_node("Identity", [value], ["y"]))
    return model(nodes, {"x": (TensorProto.DOUBLE, ["n", 6])}, {"y": (TensorProto.DOUBLE, ["n", 6])}, constants)


def drawn() -> np.random.Generator:
    seed = np.random.SeedSequence().entropy
    print(f"seed = {seed}")
    return np.random.default_rng(seed)


def test_a_model_that_float32_serves_runs_in_it_as_a_whole():
    generator = drawn()
    proto, x = mlp(dtype=np.float64), generator.standard_normal((300, 40))
    config = openinfer.calibrate(proto, {"x": x})
    assert config.engine.precision == "float32" and config.engine.float64_layers == ()
    found = config.evidence["calibration"]
    assert 0 < found["error"] <= 1e-5 and found["requests"] == 256 and found["kept"] == {}
    assert "every layer runs in float32" in table(config)
    expected = reference(proto, {"x": x})["probabilities"]
    with openinfer.load(proto, config) as engine:
        answers = engine.run({"x": x})["probabilities"]
    assert answers.dtype == np.float64
    assert 0 < discrepancy(answers, expected) < 1e-5


def test_the_layer_that_float32_hurts_stays_in_float64(tmp_path):
    generator = drawn()
    proto = offset_model(generator)
    x = OFFSET + generator.standard_normal((200, 6))
    config = openinfer.calibrate(proto, {"x": x})
    assert config.engine.float64_layers == ("centred",)
    assert config.evidence["calibration"]["float32_error"] > 0.1
    assert config.evidence["calibration"]["kept"]["centred"] > 0.1
    assert "centred" in table(config)
    config.save(tmp_path / "tuned.toml")
    fresh = OFFSET + generator.standard_normal((64, 6))
    with openinfer.load(proto, tmp_path / "tuned.toml") as engine:
        assert discrepancy(engine.run({"x": fresh})["y"], reference(proto, {"x": fresh})["y"]) < 1e-5


def test_float32_is_refused_without_a_calibration_of_this_very_model():
    generator = drawn()
    proto, other = offset_model(generator), offset_model(generator)
    forced = Config().with_knobs({"engine.precision": "float32"})
    with pytest.raises(PrecisionError, match=r"float64 model; allowed: with a calibration of this model; run openinfer.calibrate"):
        openinfer.load(proto, forced)
    config = openinfer.calibrate(proto, {"x": OFFSET + generator.standard_normal((20, 6))})
    with pytest.raises(PrecisionError, match="found a calibration of the model"):
        openinfer.load(other, config)
    with pytest.raises(PrecisionError, match="differs from the calibration in centred"):
        openinfer.load(proto, config.with_knobs({"engine.float64_layers": ()}))


def test_where_no_choice_helps_the_model_stays_in_float64():
    generator = drawn()
    nodes = [helper.make_node("Sub", ["x", "offset"], ["y"])]
    proto = model(nodes, {"x": (TensorProto.DOUBLE, ["n", 6])}, {"y": (TensorProto.DOUBLE, ["n", 6])}, {"offset": np.full(6, OFFSET)})
    config = openinfer.calibrate(proto, {"x": OFFSET + generator.standard_normal((20, 6))})
    assert config.engine.precision == "model" and config.engine.float64_layers == ()
    assert "stays in float64" in table(config)
    openinfer.load(proto, config).close()
    with pytest.raises(PrecisionError, match="keeps in float64"):
        openinfer.load(proto, config.with_knobs({"engine.precision": "float32"}))


def test_what_cannot_be_calibrated_is_named():
    x = np.zeros((4, 40))
    with pytest.raises(ConfigError, match="computes nothing in float64"):
        openinfer.calibrate(mlp(), {"x": x})
    with pytest.raises(ConfigError, match="tolerance=0"):
        openinfer.calibrate(mlp(dtype=np.float64), {"x": x}, tolerance=0)
    with pytest.raises(InputError, match=r"found inputs with \[0\] requests"):
        openinfer.calibrate(mlp(dtype=np.float64), {"x": x[:0]})
    with pytest.raises(InputError, match="found list as inputs; allowed: a mapping"):
        openinfer.calibrate(mlp(dtype=np.float64), [{"x": x}])
    with pytest.raises(ConfigError, match="without a calibration"):
        table(Config())


def test_what_is_not_a_number_shows_nothing():
    generator = drawn()
    nodes = [helper.make_node("Sub", ["x", "near"], ["centred"]), helper.make_node("ReduceSum", ["centred"], ["y"], keepdims=0)]
    proto = model(nodes, {"x": (D, ["n", 6])}, {"y": (D, [])}, {"near": np.full(6, OFFSET)})
    x = OFFSET + generator.standard_normal((64, 6))
    x[::2] = np.nan
    with pytest.raises(InputError, match="no finite value of output 'y'"):
        openinfer.calibrate(proto, {"x": x})
    # A layer that was seen with NaN alone stays in float64, here the second branch's.
    nodes = [
        helper.make_node("Sub", ["x", "near"], ["centred"]),
        helper.make_node("Sub", ["z", "near"], ["hidden"]),
        helper.make_node("IsNaN", ["hidden"], ["missing"]),
        helper.make_node("Where", ["missing", "centred", "hidden"], ["y"]),
    ]
    proto = model(nodes, {"x": (D, ["n", 6]), "z": (D, ["n", 6])}, {"y": (D, ["n", 6])}, {"near": np.full(6, OFFSET)})
    given = {"x": OFFSET + generator.standard_normal((64, 6)), "z": np.full((64, 6), np.nan)}
    assert "hidden" in openinfer.calibrate(proto, given).engine.float64_layers


def test_calibration_leaves_the_collector_alone():
    generator = drawn()
    base = Config.parse({"engine": {"gc": "off"}})
    config = openinfer.calibrate(mlp(dtype=np.float64), {"x": generator.standard_normal((20, 40))}, config=base)
    assert gc.isenabled() and config.engine.gc == "off"


def test_a_layer_that_rounds_much_and_matters_little_runs_in_float32():
    generator = drawn()
    offset = 1.6e12
    nodes = [
        helper.make_node("Sub", ["z", "far"], ["loud"]),
        helper.make_node("Mul", ["loud", "tiny"], ["faint"]),
        helper.make_node("Sub", ["x", "near"], ["centred"]),
        helper.make_node("Tanh", ["centred"], ["t"]),
        helper.make_node("Add", ["t", "faint"], ["y"]),
    ]
    constants = {"far": np.full(6, offset), "near": np.full(6, OFFSET), "tiny": np.array(1e-13)}
    proto = model(nodes, {"x": (D, ["n", 6]), "z": (D, ["n", 6])}, {"y": (D, ["n", 6])}, constants)
    given = {"x": OFFSET + generator.standard_normal((100, 6)), "z": offset + generator.standard_normal((100, 6))}
    config = openinfer.calibrate(proto, given)
    assert config.engine.float64_layers == ("centred",)
    with openinfer.load(proto, config) as engine:
        assert discrepancy(engine.run(given)["y"], reference(proto, given)["y"]) <= 1e-5


def test_a_search_without_time_takes_what_it_knows():
    generator = drawn()
    x = OFFSET + generator.standard_normal((50, 6))
    config = openinfer.calibrate(offset_model(generator), {"x": x}, seconds=1e-9)
    assert config.engine.precision == "model" and config.evidence["calibration"]["float32_error"] > 1e-5
    for most in range(2, 20):
        needed, left = int(generator.integers(1, most)), int(generator.integers(1, 6))
        tried = {}

        def inside(number, needed=needed, left=left, tried=tried):
            if number not in tried and len(tried) >= left:
                return None
            tried[number] = number >= needed
            return tried[number]

        found = _fewest(most, inside)
        assert found is None or tried[found]


def test_the_fewest_is_the_least_that_is_inside():
    for most in range(1, 40):
        for needed in range(most + 2):
            tried: set[int] = set()
            found = _fewest(most, lambda n, needed=needed, tried=tried: (tried.add(n), n >= needed)[1])
            assert found == (needed if needed < most else None)
            assert found is None or found in tried
            assert max(tried) < most or most == 0


def test_layers_that_fix_their_arithmetic_stay_and_are_told():
    generator = drawn()
    branches = [
        helper.make_graph([helper.make_node(op, ["h"], [f"{op}.out"])], op, [], [helper.make_tensor_value_info(f"{op}.out", D, ["n", 6])])
        for op in ("Neg", "Identity")
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["h"]),
        helper.make_node("If", ["flag"], ["chosen"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Tanh", ["chosen"], ["y"]),
    ]
    flag = np.array(bool(generator.integers(2)))
    inputs = {"x": (D, ["n", 6]), "flag": (TensorProto.BOOL, ["m"])}
    nodes.insert(1, helper.make_node("ReduceMax", ["flags"], ["flag1"], keepdims=0))
    nodes.insert(1, helper.make_node("Cast", ["flag"], ["flags"], to=TensorProto.INT32))
    nodes[3] = helper.make_node("If", ["flag2"], ["chosen"], then_branch=branches[0], else_branch=branches[1])
    nodes.insert(3, helper.make_node("Cast", ["flag1"], ["flag2"], to=TensorProto.BOOL))
    proto = model(nodes, inputs, {"y": (D, ["n", 6])}, {"w": generator.standard_normal((6, 6))})
    x, flags = generator.standard_normal((20, 6)), np.full(20, flag)
    config = openinfer.calibrate(proto, {"x": x, "flag": flags})
    assert config.engine.precision == "float32" and config.engine.float64_layers == ("chosen",)
    assert config.evidence["calibration"]["kept"] == {"chosen": "fixes its own arithmetic"}
    with openinfer.load(proto, config) as engine:
        found = engine.run({"x": x, "flag": flags})["y"]
    assert 0 < discrepancy(found, reference(proto, {"x": x, "flag": flags})["y"]) < 1e-5
