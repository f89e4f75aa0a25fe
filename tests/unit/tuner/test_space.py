"""Every knob of the engine that can change speed is offered to the models that it concerns, default first."""

from __future__ import annotations

import dataclasses

import pytest
from openinfer.tuner.space import space

from openinfer.config import Config
from openinfer.machine import host

# What a search may not turn: promises to the user rather than speed, what a calibration finds, and what acts on machines with a GPU or on
# sandboxed models only.
FIXED = {"engine.backend", "engine.gpu_fusion", "engine.conversion_tolerance", "memory.gpu_pool", "memory.gpu_budget_mb"}
FIXED |= {"engine.float64_layers"}
FIXED |= {name for name in Config().knobs() if name.startswith("sandbox.")}
# The pool's policy and the planner's effort: neither touches a call that runs.
FIXED |= {f"memory.{name}" for name in ("budget_bytes", "size_growth", "idle_s", "controller", "plan_effort")}

# What acts on `Engine.submit` alone; the inline replay that a study races calls the engine itself.
ON_SUBMIT = {"mode", "preferred_batches", "queue_limit", "workers", "offload_us", "record", "stall_ms"}
ON_SUBMIT |= {"blocking_threads", "blocking_timeout_ms"}


def names(operators, batches=True, precision="float64", processors=(0, 1), base=None):
    machine = dataclasses.replace(host(), processors=processors)
    return {knob.name: knob.values for knob in space(machine, operators, batches, base or Config(), precision)}


def test_settings_beside_a_knob_are_those_without_which_it_does_nothing():
    machine = dataclasses.replace(host(), processors=(0, 1))
    beside = {knob.name: knob.beside for knob in space(machine, ["Gemm"], True, Config(), None) if knob.beside}
    assert set(beside) == {"engine.wait", "engine.spin_us", "engine.pin", "scheduler.max_delay_us"}
    for settings in beside.values():
        Config().with_knobs(settings)


def test_no_knob_is_forgotten():
    everything = names(["Gemm", "Conv"]) | names(["TreeEnsembleRegressor"])
    assert set(everything) == set(Config().knobs()) - FIXED - {f"scheduler.{name}" for name in ON_SUBMIT}


def test_values_are_valid_and_start_with_the_default():
    defaults = Config().knobs()
    for operators in (["Gemm", "Conv"], ["TreeEnsembleRegressor"]):
        for name, values in names(operators).items():
            assert values[0] == defaults[name] and len(set(values)) == len(values) > 1
            for value in values:
                Config().with_knobs({name: value})


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("scheduler.max_batch", names(["Gemm"]), names(["Gemm"], batches=False)),
        ("engine.threads", names(["Gemm"]), names(["Gemm"], processors=(0,))),
        ("engine.convolution", names(["Conv"]), names(["Gemm"])),
        ("engine.tree_layout", names(["TreeEnsemble"]), names(["Gemm"])),
        ("engine.precision", names(["Gemm"]), names(["TreeEnsemble"], precision=None)),
    ],
)
def test_knobs_are_offered_where_they_act(name, there, absent):
    assert name in there and name not in absent


def test_a_model_in_float64_may_try_float32():
    assert names(["Gemm"], precision="float32")["engine.precision"] == ("model", "float32")
    assert names(["Gemm"])["engine.precision"] == ("model", "float64")
