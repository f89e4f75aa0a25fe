"""Every knob of the engine that can change speed is offered to the models that it concerns, default first."""

from __future__ import annotations

import dataclasses

import pytest
from openinfer.tuner.space import space

from openinfer.config import Config
from openinfer.machine import host

# What a search may not turn: promises to the user rather than speed, what a calibration finds, and what acts on machines with a GPU only.
FIXED = {"engine.backend", "engine.gpu_fusion", "engine.conversion_tolerance", "memory.gpu_pool", "memory.gpu_budget_mb"}
FIXED |= {"engine.float64_layers"}
FIXED |= {name for name in Config().knobs() if name.startswith("sandbox.") and name != "sandbox.spin_us"}
FIXED |= {"memory.budget_bytes", "memory.controller"}

# Promises to those who wait, and what is kept for diagnosis.
FIXED |= {f"scheduler.{name}" for name in ("queue_limit", "blocking_timeout_ms", "record", "stall_ms")}

# What acts on `Engine.submit` alone: the inline replay calls the engine itself.
ON_SUBMIT = {f"scheduler.{name}" for name in ("mode", "preferred_batches", "workers", "offload_us", "blocking_threads")}


def names(operators, batches=True, precision="float64", processors=(0, 1), base=None, submits=False, looks_up=False):
    machine = dataclasses.replace(host(), processors=processors)
    return {knob.name: knob.values for knob in space(machine, operators, batches, base or Config(), precision, submits, looks_up)}


def test_settings_beside_a_knob_are_those_without_which_it_does_nothing():
    machine = dataclasses.replace(host(), processors=(0, 1))
    for submits in (False, True):
        knobs = space(machine, ["Gemm"], True, Config(), None, submits, submits)
        beside = {knob.name: knob.beside for knob in knobs if knob.beside}
        more = {"scheduler.preferred_batches", "scheduler.blocking_threads"} if submits else set()
        assert set(beside) == {"engine.wait", "engine.spin_us", "engine.pin", "scheduler.max_delay_us"} | more
        by_name = {knob.name: knob.values for knob in knobs}
        for settings in beside.values():
            assert all(value in by_name[name] for name, value in settings.items())
            Config().with_knobs(settings)


BOUNDED = Config.parse({"memory": {"budget_bytes": 1 << 29}, "sandbox": {"mode": "process"}})


def test_no_knob_is_forgotten():
    everything = names(["Gemm", "Conv"], base=BOUNDED) | names(["TreeEnsembleRegressor"])
    assert set(everything) == set(Config().knobs()) - FIXED - ON_SUBMIT
    assert set(names(["Gemm"], submits=True, looks_up=True)) - set(names(["Gemm"])) == ON_SUBMIT


def test_values_are_valid_and_start_with_the_default():
    defaults = Config().knobs()
    offered = [names(["Gemm", "Conv"]), names(["TreeEnsembleRegressor"])]
    offered += [names(["Gemm"], submits=True, looks_up=looks_up) for looks_up in (False, True)]
    for knobs in offered:
        for name, values in knobs.items():
            assert values[0] == defaults[name] and len({str(value) for value in values}) == len(values) > 1
            for value in values:
                Config().with_knobs({name: value})


@pytest.mark.parametrize(
    ("name", "there", "absent"),
    [
        ("scheduler.max_batch", names(["Gemm"]), names(["Gemm"], batches=False)),
        ("engine.threads", names(["Gemm"]), names(["Gemm"], processors=(0,))),
        ("sandbox.spin_us", names(["Gemm"], base=BOUNDED), names(["Gemm"])),
        ("memory.size_growth", names(["Gemm"], base=BOUNDED), names(["Gemm"])),
        ("engine.convolution", names(["Conv"]), names(["Gemm"])),
        ("engine.tree_layout", names(["TreeEnsemble"]), names(["Gemm"])),
        ("scheduler.blocking_threads", names(["Gemm"], submits=True, looks_up=True), names(["Gemm"], submits=True)),
        ("scheduler.preferred_batches", names(["Gemm"], submits=True), names(["Gemm"], batches=False, submits=True)),
        ("engine.precision", names(["Gemm"]), names(["TreeEnsemble"], precision=None)),
        ("sandbox.spin_us", names(["Gemm"], base=Config.parse({"sandbox": {"mode": "strict"}})), names(["Gemm"])),
    ],
)
def test_knobs_are_offered_where_they_act(name, there, absent):
    assert name in there and name not in absent


def test_a_model_in_float64_may_try_float32():
    assert names(["Gemm"], precision="float32")["engine.precision"] == ("model", "float32")
    assert names(["Gemm"])["engine.precision"] == ("model", "float64")
