"""The build that times layers: the same bits, one time a layer, and nothing changed for other calls."""

from __future__ import annotations

import time

import numpy as np
import pytest
from models import mlp, model
from onnx import TensorProto, helper

import openinfer
from openinfer.errors import InputError


def draw(*shape: int) -> np.ndarray:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_timed_layers_have_the_bits_of_the_model_and_stamps_in_order(threads):
    x = draw(96, 256)
    with openinfer.load(mlp((256, 512, 256, 3)), {"engine": {"threads": threads}}) as engine:
        sources = engine.sources()
        timer = engine.layer_timer({"x": x})
        timer.outputs["probabilities"][:] = np.nan
        begin = time.perf_counter_ns()
        timer.call()
        end = time.perf_counter_ns()
        assert np.array_equal(timer.outputs["probabilities"], engine.run({"x": x})["probabilities"])
        assert engine.sources() == sources
    stamps = timer.stamps_ns()
    assert [layer.op for layer in timer.layers] == ["Gemm", "Gemm", "Gemm", "Softmax"]
    assert begin <= stamps[0] and stamps[-1] <= end and (np.diff(stamps) >= 0).all()
    assert np.array_equal(timer.durations_ns(), np.diff(stamps))
    # The wide products are four fifths of the arithmetic; the softmax of three numbers is next to nothing.
    assert timer.durations_ns()[:2].sum() > timer.durations_ns()[2:].sum()


def test_layers_count_each_tensor_once():
    with openinfer.load(mlp((40, 64, 3))) as engine:
        first = engine.layer_timer({"x": draw(2, 40)}).layers[0]
    assert first.reads[0].shape == (2, 40) and first.writes[0].shape == (2, 64)
    assert first.constants == ((40, 64), (64,))
    assert first.read_bytes >= 4 * (2 * 40 + 40 * 64 + 64) and first.written_bytes == 4 * 2 * 64


def test_a_model_with_a_part_on_the_fallback_has_no_layer_timer():
    kinds = ({"x": (TensorProto.STRING, ["n"])}, {"y": (TensorProto.STRING, ["n"])})
    with (
        openinfer.load(model([helper.make_node("Identity", ["x"], ["y"])], *kinds)) as engine,
        pytest.raises(InputError, match="compiled as a whole"),
    ):
        engine.layer_timer({"x": np.array(["a"])})


@pytest.mark.parametrize("rows", [1, 48])  # the short call keeps the GIL, the long one gives it up
def test_stamped_calls_note_their_times_in_turn(rows):
    x = draw(rows, 256)
    stamps = np.full((3, 2), -1, np.int64)
    with openinfer.load(mlp((256, 512, 256, 3))) as engine:
        call = engine.bind_stamped({"x": x}, stamps)
        bounds = []
        for _ in range(4):
            call.outputs["probabilities"][:] = np.nan
            begin = time.perf_counter_ns()
            call()
            bounds.append((begin, time.perf_counter_ns()))
        assert np.array_equal(call.outputs["probabilities"], engine.run({"x": x})["probabilities"])
    for k, row in ((3, 0), (1, 1), (2, 2)):
        begin, end = bounds[k]
        assert begin <= stamps[row, 0] <= stamps[row, 1] <= end


def test_stamps_need_rows_of_two():
    with openinfer.load(mlp()) as engine:
        for wrong in (
            np.zeros((3, 3), np.int64),
            np.zeros((3, 2), np.int32),
            np.zeros((0, 2), np.int64),
            np.zeros((4, 4), np.int64)[:, :2],
        ):
            with pytest.raises(InputError, match="rows: "):
                engine.bind_stamped({"x": draw(1, 40)}, wrong)
