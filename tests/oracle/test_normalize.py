"""Normalisation layers against onnx.reference in float64; lines far from zero keep their digits."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import agree, generator
from models import model
from onnx import TensorProto, helper

import openinfer

pytestmark = pytest.mark.kernels

F = TensorProto.FLOAT


@pytest.mark.parametrize("op", ["LayerNormalization", "RMSNormalization"])
def test_lines_over_every_axis(op):
    rng = generator()
    shape = [3, int(rng.integers(2, 6)), int(rng.integers(1, 9)), int(rng.integers(1, 80))]
    for axis in (1, 2, 3, -1, -2):
        tail = shape[axis:]
        constants = {"scale": rng.standard_normal(tail).astype(np.float32)}
        if op == "LayerNormalization" and rng.random() < 0.7:
            constants["bias"] = rng.standard_normal(tail).astype(np.float32)
        print(shape, axis, list(constants))
        outputs = ["y"]
        if op == "LayerNormalization" and rng.random() < 0.5:
            outputs += ["mean", "inverse"]
        proto = model(
            [helper.make_node(op, ["x", *constants], outputs, axis=axis, epsilon=float(rng.uniform(1e-6, 1e-2)))],
            {"x": (F, ["n", *shape[1:]])},
            {name: (F, ["n", *["d"] * 3]) for name in outputs},
            constants,
            opset=23,
        )
        agree(proto, {"x": (rng.standard_normal(shape) + rng.choice([0, 100])).astype(np.float32)})


def test_scale_and_bias_may_be_computed_or_broadcast():
    rng = generator()
    x = rng.standard_normal((4, 5, 33)).astype(np.float32)
    inputs = {"x": x, "s": rng.standard_normal(33).astype(np.float32)}
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"], axis=-1)
    constants = {"b": rng.standard_normal(1).astype(np.float32)}
    proto = model([node], {"x": (F, ["n", 5, 33]), "s": (F, [33])}, {"y": (F, ["n", 5, 33])}, constants)
    agree(proto, inputs, batched=False)


@pytest.mark.parametrize("op", ["InstanceNormalization", "GroupNormalization"])
def test_channels(op):
    rng = generator()
    for spatial in (1, 2, 3):
        size = [int(d) for d in rng.integers(2, 9, spatial)]
        groups, per_group = int(rng.integers(1, 4)), int(rng.integers(1, 4))
        channels = groups * per_group
        print(size, groups, per_group)
        attributes = {} if op == "InstanceNormalization" else {"num_groups": groups}
        constants = {name: rng.standard_normal(channels).astype(np.float32) for name in ("scale", "bias")}
        proto = model(
            [helper.make_node(op, ["x", "scale", "bias"], ["y"], **attributes)],
            {"x": (F, ["n", channels, *size])},
            {"y": (F, ["n", channels, *["d"] * spatial])},
            constants,
            opset=21,
        )
        agree(proto, {"x": (rng.standard_normal((3, channels, *size)) * 3 + 7).astype(np.float32)})


def test_a_line_far_from_zero():
    rng = generator()
    x = (rng.standard_normal((2, 300)) + 3e4).astype(np.float32)
    proto = model(
        [helper.make_node("LayerNormalization", ["x", "s"], ["y"])],
        {"x": (F, ["n", 300])},
        {"y": (F, ["n", 300])},
        {"s": np.ones(300, np.float32)},
    )
    agree(proto, {"x": x})


def test_a_batch_normalization_whose_parameters_follow_from_the_shape():
    nodes = [
        helper.make_node("Shape", ["x"], ["sizes"], start=1, end=2),
        *(
            helper.make_node("ConstantOfShape", ["sizes"], [name], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [number]))
            for name, number in (("one", 1.0), ("zero", 0.0))
        ),
        helper.make_node("BatchNormalization", ["x", "one", "zero", "zero", "one"], ["y"], epsilon=0.0),
    ]
    made = model(nodes, {"x": (TensorProto.FLOAT, [1, "c", 2])}, {"y": (TensorProto.FLOAT, [1, "c", 2])})
    rng = generator()
    with openinfer.load(made) as engine:
        for channels in (2, 4000, 3):
            x = rng.standard_normal((1, channels, 2)).astype(np.float32)
            np.testing.assert_allclose(engine.run({"x": x})["y"], x, rtol=1e-6)
