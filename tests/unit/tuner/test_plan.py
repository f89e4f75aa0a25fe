"""What a study of a float64 model starts from: calibrated on its tuning trace, with float32 on offer where that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models import mlp, model
from onnx import TensorProto, helper
from openinfer.tuner.plan import Plan, prepare
from openinfer.workloads import trace as traces
from openinfer.workloads.trace import Trace

import openinfer

D = TensorProto.DOUBLE


def planned(proto: onnx.ModelProto, x: np.ndarray, folder: Path) -> Plan:
    onnx.save(proto, folder / "model.onnx")
    traces.write(Trace({"x": x}), folder / "trace.npz")
    return prepare(None, str(folder / "model.onnx"), str(folder / "trace.npz"), None, None, 0)


def offset(then: bool) -> onnx.ModelProto:
    nodes = [helper.make_node("Sub", ["x", "offset"], ["centred"]), helper.make_node("Tanh", ["centred"], ["y"])]
    kept = nodes if then else [helper.make_node("Sub", ["x", "offset"], ["y"])]
    return model(kept, {"x": (D, ["n", 6])}, {"y": (D, ["n", 6])}, {"offset": np.full(6, 1.6e9)})


def test_a_float64_model_is_calibrated_and_float32_has_to_win_its_race(tmp_path):
    x = 1.6e9 + np.random.default_rng().standard_normal((64, 6))
    plan = planned(offset(then=True), x, tmp_path)
    assert plan.base.engine.precision == "model" and plan.base.engine.float64_layers == ("centred",)
    knob = next(knob for knob in plan.knobs if knob.name == "engine.precision")
    assert knob.values == ("model", "float32")
    assert plan.identity()["base"] == {"engine.float64_layers": ["centred"]}
    openinfer.load(tmp_path / "model.onnx", plan.base.with_knobs({"engine.precision": "float32"})).close()


@pytest.mark.parametrize("hopeless", [True, False])
def test_float32_is_not_offered_where_it_does_not_help(tmp_path, hopeless):
    generator = np.random.default_rng()
    if hopeless:
        plan = planned(offset(then=False), 1.6e9 + generator.standard_normal((64, 6)), tmp_path)
    else:
        plan = planned(mlp(), generator.standard_normal((64, 40)).astype(np.float32), tmp_path)
    offered = [knob.values for knob in plan.knobs if knob.name == "engine.precision"]
    assert offered == ([] if hopeless else [("model", "float64")])
    assert plan.base.engine.float64_layers == ()
