"""Layers with constant weights against onnx.reference in float64, drawn anew each run; rows and images keep their bits in every batch."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import agree, generator, runs
from models import model
from onnx import TensorProto, helper

import openinfer

pytestmark = pytest.mark.kernels

F = TensorProto.FLOAT
RUNS = 6


def conv_case(rng, spatial):
    group = int(rng.choice([1, 1, 2, 4]))
    channels, filters = group * int(rng.integers(1, 9)), group * int(rng.integers(1, 14))
    kernel = [int(k) for k in rng.integers(1, 5, spatial)]
    size = [int(d) for d in rng.integers(9, 24, spatial)]
    attributes = {
        "group": group,
        "strides": [int(s) for s in rng.integers(1, 4, spatial)],
        "dilations": [int(d) for d in rng.integers(1, 3, spatial)],
    }
    if rng.random() < 0.3:
        attributes["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    else:
        attributes["pads"] = [int(p) for p in rng.integers(0, 3, 2 * spatial)]
    weight = rng.standard_normal((filters, channels // group, *kernel)).astype(np.float32)
    return channels, size, attributes, weight


@pytest.mark.parametrize("spatial", [1, 2])
def test_convolutions(spatial):
    rng = generator()
    for _ in range(runs(RUNS)):
        channels, size, attributes, weight = conv_case(rng, spatial)
        print(channels, size, attributes, weight.shape)
        activation = rng.choice(["Relu", "LeakyRelu", "Sigmoid"])
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes), helper.make_node(str(activation), ["c"], ["y"])]
        proto = model(
            nodes,
            {"x": (F, ["n", channels, *size])},
            {"y": (F, ["n", weight.shape[0], *["d"] * spatial])},
            {"w": weight, "b": rng.standard_normal(weight.shape[0]).astype(np.float32)},
        )
        agree(proto, {"x": rng.standard_normal((3, channels, *size)).astype(np.float32)})


def test_depthwise_convolutions():
    rng = generator()
    for _ in range(runs(8)):
        channels, multiplier = int(rng.integers(2, 6)), int(rng.choice([1, 1, 2]))
        kernel, strides, dilations = ([int(n) for n in rng.integers(1, high, 2)] for high in (8, 3, 3))
        size = [int(d) for d in rng.integers(14, 40, 2)]
        attributes = {"group": channels, "strides": strides, "dilations": dilations, "pads": [int(p) for p in rng.integers(0, 3, 4)]}
        print(channels, multiplier, kernel, size, attributes)
        weight = rng.standard_normal((channels * multiplier, 1, *kernel)).astype(np.float32)
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"], **attributes), helper.make_node("Clip", ["c", "low", "high"], ["y"])]
        constants = {"w": weight, "low": np.float32(-1), "high": np.float32(2)}
        proto = model(nodes, {"x": (F, ["n", channels, *size])}, {"y": (F, ["n", channels * multiplier, "h", "w"])}, constants)
        agree(proto, {"x": rng.standard_normal((3, channels, *size)).astype(np.float32)})


def test_convolutions_by_winograd_s_method():
    rng = generator()
    for case in range(runs(6)):
        channels, filters = (int(n) for n in rng.integers(16, 90, 2))
        size, pads = [int(d) for d in rng.integers(4, 40, 2)], [int(p) for p in rng.integers(0, 2, 4)]
        print(channels, filters, size, pads)
        weight = rng.standard_normal((filters, channels, 3, 3)).astype(np.float32)
        nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=pads), helper.make_node("LeakyRelu", ["c"], ["y"])]
        bias = rng.standard_normal(filters).astype(np.float32)
        proto = model(nodes, {"x": (F, ["n", channels, *size])}, {"y": (F, ["n", filters, "h", "w"])}, {"w": weight, "b": bias})
        # Half of the cases far from zero, as after a ReLU: the transforms subtract neighbours.
        x = (rng.standard_normal((3, channels, *size)) + 3.0 * (case % 2)).astype(np.float32)
        engine = agree(proto, {"x": x})
        found = engine.run({"x": x})["y"]
        with openinfer.load(proto, {"engine": {"threads": 2}}) as pair:
            assert (pair.run({"x": x})["y"] == found).all()
        direct = openinfer.load(proto, {"engine": {"convolution": "direct"}}).run({"x": x})["y"]
        assert np.abs(found - direct).max() <= 2e-5 * np.abs(direct).max()


@pytest.mark.parametrize("kernel", [1, 3])
def test_tile_knobs_change_the_code_and_not_the_bits(kernel):
    rng = generator()
    weight = rng.standard_normal((37, 20, kernel, kernel)).astype(np.float32)
    proto = model(
        [helper.make_node("Conv", ["x", "w"], ["y"], strides=[1, 1])],
        {"x": (F, ["n", 20, 15, 21])},
        {"y": (F, ["n", 37, "h", "w"])},
        {"w": weight},
    )
    x = rng.standard_normal((2, 20, 15, 21)).astype(np.float32)
    knobs = [{"convolution": "direct", "tile_rows": rows, "tile_vectors": vectors} for rows, vectors in ((0, 0), (3, 0), (0, 1), (5, 2))]
    found = [openinfer.load(proto, {"engine": knob}).run({"x": x})["y"] for knob in knobs]
    assert all((other == found[0]).all() for other in found[1:])


def test_two_threads_share_a_convolution():
    rng = generator()
    weight = rng.standard_normal((40, 24, 3, 3)).astype(np.float32)
    proto = model(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        {"x": (F, ["n", 24, 30, 30])},
        {"y": (F, ["n", 40, 30, 30])},
        {"w": weight},
    )
    x = rng.standard_normal((4, 24, 30, 30)).astype(np.float32)
    alone = openinfer.load(proto).run({"x": x})["y"]
    with openinfer.load(proto, {"engine": {"threads": 2}}) as engine:
        for _ in range(20):
            assert (engine.run({"x": x})["y"] == alone).all()


def test_a_small_network_of_everything():
    rng = generator()
    names = {
        "w": (8, 3, 3, 3),
        "scale": (8,),
        "shift": (8,),
        "mean": (8,),
        "variance": (8,),
        "w2": (8, 8, 1, 1),
        "dense": (8, 5),
        "bias": (5,),
    }
    constants = {
        name: (rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else rng.standard_normal(shape)).astype(np.float32)
        for name, shape in names.items()
    }
    constants["shape"] = np.array([0, -1])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["p"]),
        helper.make_node("Add", ["p", "r"], ["s"]),
        helper.make_node("BatchNormalization", ["s", "scale", "shift", "mean", "variance"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["d"]),
        helper.make_node("Add", ["d", "bias"], ["e"]),
        helper.make_node("Tanh", ["e"], ["y"]),
    ]
    proto = model(nodes, {"x": (F, ["n", 3, 16, 16])}, {"y": (F, ["n", 5])}, constants)
    engine = agree(proto, {"x": rng.standard_normal((5, 3, 16, 16)).astype(np.float32)})
    assert engine.statistics().plan_gap < 1.3
