"""Names that lowering makes up beside those of the model."""

from __future__ import annotations

import numpy as np
from agreement import generator
from models import model
from onnx import TensorProto, helper

import openinfer

F = TensorProto.FLOAT


def test_a_model_may_use_the_names_that_lowering_would_choose():
    rng = generator()
    taken = ["y (output)", "%output y", "%%output y", "%scratch z/row"]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    nodes += [helper.make_node(op, ["x"], [name]) for op, name in zip(("Neg", "Abs", "Exp", "Floor"), taken, strict=True)]
    proto = model(nodes, {"x": (F, ["n", 5])}, {name: (F, ["n", 5]) for name in ("y", *taken)})
    x = rng.standard_normal((3, 5)).astype(np.float32)
    engine = openinfer.load(proto)
    found = engine.run({"x": x})
    assert not engine.statistics().fallback
    for name, expected in zip(("y", *taken), (x, -x, np.abs(x), np.exp(x), np.floor(x)), strict=True):
        assert np.allclose(found[name], expected, rtol=1e-6), name
