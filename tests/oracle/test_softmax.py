"""Softmax against float64 over every kind of line: short, one vector, several, strided; infinities and NaN; the same bits in any batch."""

from __future__ import annotations

import numpy as np
import pytest
from models import model
from onnx import TensorProto, helper

import openinfer

pytestmark = pytest.mark.kernels


def softmax(x, axis):
    wide = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(wide - wide.max(axis, keepdims=True))
        return powers / powers.sum(axis, keepdims=True)


def engine(shape, axis, kind=TensorProto.FLOAT, opset=17):
    node = helper.make_node("Softmax", ["x"], ["y"], axis=axis)
    return openinfer.load(model([node], {"x": (kind, shape)}, {"y": (kind, shape)}, opset=opset))


@pytest.mark.parametrize(("dtype", "kind", "tolerance"), [(np.float32, TensorProto.FLOAT, 1e-6), (np.float64, TensorProto.DOUBLE, 1e-14)])
def test_lines_of_every_length(dtype, kind, tolerance):
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"{seed=}")
    rng = np.random.default_rng(seed)
    with engine(["n", "size"], -1, kind) as contiguous, engine(["n", "size", 3], 1, kind) as strided:
        for size in [*range(1, 36), 63, 64, 65, 200]:
            x = (rng.standard_normal((5, size)) * rng.choice([1, 10, 300])).astype(dtype)
            found = contiguous.run({"x": x})["y"]
            np.testing.assert_allclose(found, softmax(x, 1), atol=tolerance)
            for row in range(5):
                assert (contiguous.run({"x": x[row : row + 1]})["y"][0] == found[row]).all()
            cube = np.stack([x, -x, x[::-1]], axis=2)
            np.testing.assert_allclose(strided.run({"x": cube})["y"], softmax(cube, 1), atol=tolerance)


@pytest.mark.parametrize("size", [3, 4, 9, 16, 40])
def test_masked_and_missing_values(size):
    lines = np.full((5, size), -1.0, np.float32)
    lines[0, 1:] = -np.inf  # all but one masked
    lines[1, 0] = np.nan
    lines[2, -1] = np.nan
    lines[3, :] = -np.inf
    lines[4, 0] = 3e38
    with engine(["n", size], -1) as found:
        y = found.run({"x": lines})["y"]
    assert y[0].tolist() == [1.0] + [0.0] * (size - 1)
    assert np.isnan(y[1:4]).all()
    assert y[4].tolist() == [1.0] + [0.0] * (size - 1)


def test_nothing_is_written_behind_a_line():
    with engine([2, 3], -1) as found:
        x, y = np.ones((2, 3), np.float32), np.full(40, 7.0, np.float32)
        found.bind({"x": x}, {"y": y[:6].reshape(2, 3)})()
    np.testing.assert_allclose(y[:6], 1 / 3, rtol=1e-6)
    assert (y[6:] == 7).all()


def test_earlier_opsets_flatten_at_the_axis():
    x = np.random.default_rng().standard_normal((2, 3, 4)).astype(np.float32)
    with engine([2, 3, 4], 1, opset=11) as found:
        np.testing.assert_allclose(found.run({"x": x})["y"], softmax(x.reshape(2, 12), 1).reshape(x.shape), atol=1e-6)


def test_a_column_alone_keeps_its_bits():
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"{seed=}")
    x = (np.random.default_rng(seed).standard_normal((40, 64)) * 60).astype(np.float32)
    with engine([40, "n"], 0) as made:
        together = made.run({"x": x})["y"]
        for column in range(64):
            alone = made.run({"x": np.ascontiguousarray(x[:, column : column + 1])})["y"]
            assert (alone[:, 0] == together[:, column]).all()
