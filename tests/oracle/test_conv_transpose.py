"""Transposed convolutions against onnx.reference in float64, and against the operator's text where the reference falls short."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from agreement import generator, runs
from models import model
from onnx import TensorProto, helper

import openinfer

pytestmark = pytest.mark.kernels

F = TensorProto.FLOAT


def scattered(x, weight, bias, strides, dilations, before, output, group):
    """The operator's text in float64: every input adds its weighted kernel into the output."""
    channels, per_group = weight.shape[:2]
    wide = [
        s * (d - 1) + (k - 1) * dilation + 1 for s, d, k, dilation in zip(strides, x.shape[2:], weight.shape[2:], dilations, strict=True)
    ]
    room = [max(w, low + o) for w, low, o in zip(wide, before, output, strict=True)]
    y = np.zeros((len(x), per_group * group, *room))
    for taps in itertools.product(*(range(k) for k in weight.shape[2:])):
        at = tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, d, n, s in zip(taps, dilations, x.shape[2:], strides, strict=True))
        for g in range(group):
            own = slice(g * channels // group, (g + 1) * channels // group)
            kernel = weight[(own, slice(None), *taps)].astype(np.float64)
            y[(slice(None), slice(g * per_group, (g + 1) * per_group), *at)] += np.einsum(
                "nc...,cf->nf...", x[:, own].astype(np.float64), kernel
            )
    crop = tuple(slice(low, low + o) for low, o in zip(before, output, strict=True))
    return y[(..., *crop)] + bias.reshape(1, -1, *[1] * len(output)).astype(np.float64)


@pytest.mark.parametrize("spatial", [1, 2])
def test_strides_dilations_groups_pads(spatial):
    rng = generator()
    for _ in range(runs(8)):
        group = int(rng.choice([1, 1, 2, 3]))
        channels, per_group = group * int(rng.integers(1, 7)), int(rng.integers(1, 14))
        kernel, size = [int(k) for k in rng.integers(1, 5, spatial)], [int(d) for d in rng.integers(1, 20, spatial)]
        strides, dilations = ([int(s) for s in rng.integers(1, high, spatial)] for high in (4, 3))
        extra = [int(rng.integers(0, s)) for s in strides]
        reach = [s * (d - 1) + e + (k - 1) * dd + 1 for s, d, e, k, dd in zip(strides, size, extra, kernel, dilations, strict=True)]
        before = [int(rng.integers(0, min(k * dd, r))) for k, dd, r in zip(kernel, dilations, reach, strict=True)]
        after = [int(rng.integers(0, min(k * dd, r - low))) for k, dd, r, low in zip(kernel, dilations, reach, before, strict=True)]
        output = [r - low - high for r, low, high in zip(reach, before, after, strict=True)]
        attributes = {"group": group, "strides": strides, "dilations": dilations, "pads": before + after, "output_padding": extra}
        print(channels, per_group, kernel, size, attributes)
        weight = rng.standard_normal((channels, per_group, *kernel)).astype(np.float32)
        bias = rng.standard_normal(per_group * group).astype(np.float32)
        nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"], **attributes), helper.make_node("Relu", ["c"], ["y"])]
        shape = ["n", per_group * group, *["d"] * spatial]
        proto = model(nodes, {"x": (F, ["n", channels, *size])}, {"y": (F, shape)}, {"w": weight, "b": bias})
        x = rng.standard_normal((3, channels, *size)).astype(np.float32)
        engine = openinfer.load(proto)
        found = engine.run({"x": x})["y"]
        expected = np.maximum(scattered(x, weight, bias, strides, dilations, before, output, group), 0)
        assert not engine.statistics().fallback
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
        assert (engine.run({"x": x[1:2]})["y"][0] == found[1]).all()


@pytest.mark.parametrize(
    ("attributes", "before", "output"),
    [
        ({"auto_pad": "SAME_UPPER", "strides": [2, 3]}, (0, 0), (16, 24)),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 3]}, (1, 1), (16, 24)),
        ({"auto_pad": "VALID", "strides": [1, 2]}, (0, 0), (10, 18)),
        ({"output_shape": [18, 17], "strides": [2, 2]}, (0, 1), (18, 17)),
        ({"output_shape": [15, 16], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, (1, 1), (15, 16)),
        ({"output_shape": [14, 18], "strides": [2, 2]}, (2, 0), (14, 18)),
    ],
)
def test_the_output_s_size_can_be_asked_for(attributes, before, output):
    rng = generator()
    weight = rng.standard_normal((5, 9, 3, 4)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)
    proto = model([node], {"x": (F, ["n", 5, 8, 8])}, {"y": (F, ["n", 9, "h", "w"])}, {"w": weight})
    x = rng.standard_normal((2, 5, 8, 8)).astype(np.float32)
    engine = openinfer.load(proto)
    found, expected = engine.run({"x": x})["y"], scattered(x, weight, np.zeros(9), attributes["strides"], (1, 1), before, output, 1)
    assert not engine.statistics().fallback
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_two_threads_share_a_transposed_convolution():
    rng = generator()
    weight = rng.standard_normal((24, 20, 3, 3)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    proto = model([node], {"x": (F, ["n", 24, 17, 15])}, {"y": (F, ["n", 20, "h", "w"])}, {"w": weight})
    x = rng.standard_normal((2, 24, 17, 15)).astype(np.float32)
    alone = openinfer.load(proto).run({"x": x})["y"]
    with openinfer.load(proto, {"engine": {"threads": 2}}) as engine:
        for _ in range(10):
            assert (engine.run({"x": x})["y"] == alone).all()
