"""Resize and Upsample against onnx.reference in float64."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import agree, generator, runs
from models import model
from onnx import TensorProto, helper

import openinfer

pytestmark = pytest.mark.kernels

F = TensorProto.FLOAT
TRANSFORMATIONS = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def resized(constants, kind=F, shape=("n", 3, 7, 10), **attributes):
    """A model of one Resize over the two last axes."""
    inputs = ["x", "roi" if "roi" in constants else "", "scales" if "scales" in constants else "", "sizes" if "sizes" in constants else ""]
    node = helper.make_node("Resize", inputs, ["y"], axes=[2, 3], **attributes)
    return model([node], {"x": (kind, shape)}, {"y": (kind, ["n", 3, "h", "w"])}, constants, opset=19)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_coordinates_weights_and_sizes(mode, transformation):
    rng = generator()
    for _ in range(runs(3)):
        constants = {"roi": rng.uniform(-0.2, 1.2, 4).astype(np.float32)} if transformation == "tf_crop_and_resize" else {}
        if transformation != "tf_crop_and_resize" and rng.random() < 0.5:
            constants["scales"] = rng.uniform(0.3, 3.0, 2).astype(np.float32)
            while transformation == "half_pixel_symmetric" and int(7 * constants["scales"][0]) % 2:
                # Its middle row lies on row 3 but for rounding, and there onnx.reference takes wrong neighbours too.
                constants["scales"] = rng.uniform(0.3, 3.0, 2).astype(np.float32)
        else:
            # None of these puts a coordinate beside a whole number, where rounding decides and onnx.reference takes wrong neighbours.
            constants["sizes"] = np.array([rng.choice([6, 8, 12, 18, 20, 24]), rng.choice([9, 11, 17, 21, 23])])
        attributes = {"mode": mode, "coordinate_transformation_mode": transformation, "extrapolation_value": 7.5}
        if mode == "nearest":
            attributes["nearest_mode"] = str(rng.choice(ROUNDINGS))
        else:
            attributes["exclude_outside"] = int(rng.integers(2))
            attributes["antialias"] = int(rng.integers(2))
        if mode == "cubic":
            attributes["cubic_coeff_a"] = float(rng.choice([-0.75, -0.5]))
        if "sizes" in constants and transformation == "half_pixel":
            attributes["keep_aspect_ratio_policy"] = str(rng.choice(["not_larger", "not_smaller"]))
        print(constants, attributes)
        agree(resized(constants, **attributes), {"x": rng.standard_normal((2, 3, 7, 10)).astype(np.float32)})


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.bool_])
def test_nearest_keeps_every_type(dtype):
    rng = generator()
    x = (rng.standard_normal((2, 3, 7, 10)) * 50).astype(dtype)
    proto = resized(
        {"scales": np.float32([2, 3])},
        helper.np_dtype_to_tensor_dtype(x.dtype),
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    engine = openinfer.load(proto)
    assert (engine.run({"x": x})["y"] == x.repeat(2, 2).repeat(3, 3)).all()
    assert not engine.statistics().fallback


@pytest.mark.parametrize(("opset", "mode"), [(7, "nearest"), (9, "nearest"), (9, "linear")])
def test_upsample(opset, mode):
    rng = generator()
    scales = np.float32([1, 1, 2, 3])
    node = helper.make_node(
        "Upsample", ["x"] if opset < 9 else ["x", "s"], ["y"], mode=mode, **({"scales": scales.tolist()} if opset < 9 else {})
    )
    proto = model([node], {"x": (F, ["n", 3, 5, 6])}, {"y": (F, ["n", 3, 10, 18])}, {} if opset < 9 else {"s": scales}, opset=opset)
    x = rng.standard_normal((2, 3, 5, 6)).astype(np.float32)
    engine = openinfer.load(proto)
    found = engine.run({"x": x})["y"]
    if mode == "nearest":
        expected = x.repeat(2, 2).repeat(3, 3)
    else:
        rows, columns = (np.interp(np.arange(d * s) / s, np.arange(d), np.arange(d)) for d, s in ((5, 2), (6, 3)))
        across = np.stack([(1 - q % 1) * x[..., int(q)] + q % 1 * x[..., min(5, int(q) + 1)] for q in columns], -1)
        expected = np.stack([(1 - r % 1) * across[..., int(r), :] + r % 1 * across[..., min(4, int(r) + 1), :] for r in rows], -2)
    assert not engine.statistics().fallback
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_infinities_stay_where_they_have_weight():
    x = np.zeros((1, 3, 7, 10), np.float32)
    x[:, :, 3, 4] = np.inf
    y = openinfer.load(resized({"scales": np.float32([1, 2])}, mode="linear", coordinate_transformation_mode="asymmetric")).run({"x": x})[
        "y"
    ]
    assert (y[:, :, 3, 7:10] == np.inf).all()
    assert np.isinf(y).sum() == 9 and not np.isnan(y).any()


def test_sizes_that_follow_from_another_input_s_shape():
    rng = generator()
    nodes = [
        helper.make_node("Shape", ["skip"], ["sizes"], start=2),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], axes=[2, 3], mode="linear"),
    ]
    inputs = {"x": (F, ["n", 3, "h", "w"]), "skip": (F, ["n", 1, "a", "b"])}
    proto = model(nodes, inputs, {"y": (F, ["n", 3, "a", "b"])}, opset=19)
    x = rng.standard_normal((2, 3, 7, 10)).astype(np.float32)
    for size in ((14, 20), (9, 11)):
        agree(proto, {"x": x, "skip": np.zeros((2, 1, *size), np.float32)})


def test_half_precision_outside_the_region():
    constants = {"roi": np.array([-1, 0, 1, 2], np.float32), "scales": np.array([1, 2], np.float32)}
    made = resized(
        constants, TensorProto.FLOAT16, mode="nearest", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=10.0
    )
    x = generator().standard_normal((1, 3, 7, 10)).astype(np.float16)
    with openinfer.load(made) as engine:
        found = engine.run({"x": x})["y"]
        assert not engine.statistics().fallback
    inside = np.isin(found, x)
    assert not inside.all()
    assert (found[~inside] == 10).all()
