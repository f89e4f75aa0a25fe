"""An arm serves every kind of model and finds every wrong answer; here in this process, without a race."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from models import mlp, model
from onnx import TensorProto, helper
from openinfer.tuner.arm_server import open_arm
from openinfer.tuner.pace import GAP_S, Pace
from openinfer.tuner.plan import prepare
from openinfer.tuner.task import write
from openinfer.workloads import trace as traces

from openinfer.config import Config

F = TensorProto.FLOAT
PACE = Pace(requests=60, block=20, block_s=0.01, gap_s=GAP_S, objective="p50")


def fixed():
    weight = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (F, [4, 8])}, {"y": (F, [4, 3])}, {"w": weight})


def on_the_fallback():
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Shape", ["i"], ["s"]),
        helper.make_node("Cast", ["s"], ["c"], to=1),
    ]
    return model([*nodes, helper.make_node("Add", ["x", "c"], ["y"])], {"x": (F, [1, 2])}, {"y": (F, [1, 2])})


def every_type():
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], axis=1, keepdims=0),
        helper.make_node("Greater", ["x", "c"], ["b"]),
        helper.make_node("Sqrt", ["x"], ["s"]),  # NaN for negative numbers, and rightly so
    ]
    results = {"i": (TensorProto.INT64, ["n"]), "b": (TensorProto.BOOL, ["n", 2]), "s": (F, ["n", 2])}
    return model(nodes, {"x": (F, ["n", 2])}, results, {"c": np.float32(0.5)})


def served(folder, proto, **knobs):
    onnx.save(proto, folder / "m.onnx")
    task = write(prepare(None, str(folder / "m.onnx"), None, None, None, 0, PACE), folder / "m.study")
    course = task.tuning
    config = Config().with_knobs(knobs).model_dump(mode="json")
    return course, open_arm(course.model, config, course.trace, course.oracle, course.tolerance)


@pytest.mark.parametrize("proto", [fixed, on_the_fallback, every_type, mlp])
def test_right_answers(tmp_path, proto):
    course, arm = served(tmp_path, proto())
    arm.settle(course.block)
    found = arm.block(20, 20)
    assert found["error"] <= 1e-5 and len(found["corrected"]) == len(found["raw"]) == 20
    assert (found["corrected"] > 0).all() and (found["lateness"] >= 0).all()
    facts = arm.facts()
    assert facts["peak_bytes"] > 1 << 20 and facts["warm_up_replays"] >= 4 and facts["drift"] > 0
    arm.close()


def test_joined_requests_get_their_own_answers(tmp_path):
    _, arm = served(tmp_path, mlp(), **{"scheduler.max_batch": 7})
    assert arm.block(0, 60)["error"] <= 1e-5
    arm.close()


def queries(folder, **knobs):
    task = write(prepare("recommendation", None, None, None, None, 0, PACE), folder / "r.study")
    course = task.tuning
    config = task.base.with_knobs(knobs).model_dump(mode="json")
    return course, open_arm(course.model, config, course.trace, course.oracle, course.tolerance, submits=course.submits)


@pytest.mark.parametrize("mode", ["auto", "async", "hybrid", "inline"])
def test_requests_of_several_rows_through_submit_get_their_own_answers(tmp_path, mode):
    course, arm = queries(tmp_path, **{"scheduler.mode": mode})
    assert course.submits == "recommendation"
    found = arm.block(20, 20)
    assert found["error"] <= 1e-5 and len(found["corrected"]) == 20 and (found["corrected"] >= found["raw"]).all()
    assert found["seen"]["blocking_p99_ns"] > 0 and 0 < found["seen"]["batch_fill"] <= 1
    arm.close()


def test_a_look_up_that_gives_another_user_is_found(tmp_path):
    _, arm = queries(tmp_path)
    keys = arm._service._keys
    index = next(k for k in range(20, 40) if keys[k] >= 0)
    keys[index] = (keys[index] + 1) % 2000
    assert arm.block(0, 20)["error"] <= 1e-5
    assert arm.block(20, 20)["error"] > 1e-5
    arm.close()


@pytest.mark.parametrize("proto", [every_type, mlp])
def test_one_wrong_answer_is_found(tmp_path, proto):
    course, arm = served(tmp_path, proto())
    arm.close()
    with np.load(course.oracle) as file:
        answers = {name: file[name] for name in file.files}
    for name, value in answers.items():
        changed = value.copy()
        changed[33] = ~changed[33] if changed.dtype == bool else np.nan_to_num(changed[33]) + 1
        (tmp_path / "changed.npz").write_bytes(traces.npz_bytes({**answers, name: changed}))
        other = open_arm(course.model, Config().model_dump(mode="json"), course.trace, str(tmp_path / "changed.npz"), 1e-5)
        assert other.block(0, 20)["error"] <= 1e-5
        assert other.block(20, 20)["error"] > 1e-5, name
        other.close()


def test_a_handicap_stretches_the_service_by_its_factor(tmp_path):
    course, _ = served(tmp_path, mlp((40, 512, 512, 3)))
    arms = [open_arm(course.model, Config().model_dump(mode="json"), course.trace, course.oracle, 1e-5, factor) for factor in (1.0, 3.0)]
    ratios = []
    for _ in range(9):
        plain, slow = (np.median(arm.block(0, 60)["raw"]) for arm in arms)
        ratios.append(slow / plain)
    assert 2 < np.median(ratios) < 4


def test_the_pace_of_a_plan_is_kept(tmp_path):
    course, arm = served(tmp_path, mlp())
    arm.close()
    assert dataclasses.replace(PACE, objective="p50") == PACE and (course.block, course.requests, course.block_s) == (20, 60, 0.01)
