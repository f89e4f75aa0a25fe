"""Pooling against its definition in float64, one window at a time; onnx.reference gets the shape of some asymmetric pads wrong."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import generator, runs
from models import model
from onnx import TensorProto, helper

import openinfer

pytestmark = pytest.mark.kernels

KINDS = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}
# Rows and columns: below and above a vector, one of each, and past the unrolled kernels.
SIZES = [(13, 17), (5, 40), (1, 70), (70, 1), (21, 33)]


def pooled(x, op, kernel, strides, dilations, pads, count_include_pad=0):
    """The operator's text."""
    maximum = op == "MaxPool"
    margins = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    wide = np.pad(x.astype(np.float64), margins, constant_values=-np.inf if maximum else 0.0)
    inside = np.pad(np.ones(x.shape), margins, constant_values=float(count_include_pad))
    size = [(wide.shape[2 + a] - (kernel[a] - 1) * dilations[a] - 1) // strides[a] + 1 for a in (0, 1)]
    out = np.empty((*x.shape[:2], *size))
    for place in np.ndindex(*size):
        spans = [slice(at * s, at * s + (k - 1) * d + 1, d) for at, s, k, d in zip(place, strides, kernel, dilations, strict=True)]
        window = wide[..., spans[0], spans[1]]
        out[..., place[0], place[1]] = window.max((2, 3)) if maximum else window.sum((2, 3)) / inside[..., spans[0], spans[1]].sum((2, 3))
    return out


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pools(op, size):
    rng = generator()
    for draw in range(runs(3)):
        dtype = str(rng.choice(list(KINDS)))
        longest = np.minimum(size, (4, 4) if draw else (12, 12))
        kernel = [int(rng.integers(1, most + 1)) for most in longest]
        dilations = [int(rng.integers(1, 3)) if (k - 1) * 2 < d else 1 for k, d in zip(kernel, size, strict=True)]
        attributes = {
            "kernel_shape": kernel,
            "strides": [int(s) for s in rng.integers(1, 4, 2)],
            "dilations": dilations,
            "pads": [int(p) for p in np.minimum(rng.integers(0, 3, 4), np.array(kernel * 2) - 1)],
        }
        counted = {"count_include_pad": int(rng.integers(2))} if op == "AveragePool" else {}
        print(dtype, attributes, counted)
        node = helper.make_node(op, ["x"], ["y"], **attributes, **counted)
        proto = model([node], {"x": (KINDS[dtype], ["n", 3, *size])}, {"y": (KINDS[dtype], ["n", 3, "h", "w"])}, opset=19)
        x = (rng.standard_normal((2, 3, *size)) - 3).astype(dtype)
        if op == "MaxPool":
            x[rng.random(x.shape) < 0.01] = np.nan
            x[rng.random(x.shape) < 0.01] = -np.inf
        engine = openinfer.load(proto)
        found = engine.run({"x": x})["y"]
        expected = pooled(x, op, kernel, attributes["strides"], dilations, attributes["pads"], **counted)
        assert not engine.statistics().fallback
        assert found.shape == expected.shape and found.dtype == dtype
        if op == "MaxPool":
            assert np.array_equal(found, expected, equal_nan=True)
        else:
            tolerance = 1e-5 if dtype == "float32" else 1e-12
            assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
        assert np.array_equal(engine.run({"x": x[:1]})["y"][0], found[0], equal_nan=True)
