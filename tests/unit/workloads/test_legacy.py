"""The orders, those who call, and the two old models behind one API."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from openinfer.workloads import registry
from openinfer.workloads.legacy.callers import FORMS, Callers
from openinfer.workloads.legacy.orders import DESK
from openinfer.workloads.legacy.traffic import NETWORK, PIPELINE, REGIMES, calls, prepared
from scipy.optimize import minimize

import openinfer
from openinfer.errors import InputError, PrecisionError, WorkloadError
from openinfer.frontend.float64 import discrepancy, reference, widen

MODELS = (PIPELINE, NETWORK)


@pytest.fixture
def seed():
    drawn = int(np.random.SeedSequence().entropy) % 2**32
    print(f"seed = {drawn}")
    return drawn


def test_callers_are_recovered_by_maximum_likelihood(seed):
    true = REGIMES["mixed"]
    times, forms, rows = true.simulate(1_000_000, seed)

    def cost(p):
        *rates, more = np.exp(p)
        return -Callers(dict(zip(true.rates, rates, strict=True)), float(more)).log_likelihood(times, forms, rows) / len(times)

    start = np.log(np.full(len(true.rates) + 1, 10.0))
    found = np.exp(minimize(cost, start, method="L-BFGS-B").x)
    np.testing.assert_allclose(found, [*true.rates.values(), true.more_rows], rtol=0.05)


def test_the_time_open_is_recovered_by_maximum_likelihood(seed):
    x, kind = DESK.draw(1_000_000, np.random.default_rng(seed))

    def cost(p):
        shape, *means = np.exp(p)
        asked = dataclasses.replace(DESK, open_shape=float(shape), open_mean_s=np.array(means))
        return -asked.log_joint(x)[np.arange(len(x)), kind].mean()

    found = np.exp(minimize(cost, np.log([1.0, 200.0, 200.0, 200.0]), method="L-BFGS-B").x)
    np.testing.assert_allclose(found, [DESK.open_shape, *DESK.open_mean_s], rtol=0.05)
    np.testing.assert_allclose(np.bincount(kind) / len(kind), DESK.share, rtol=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_every_form_gets_the_answer_of_the_native_one(name, seed):
    legacy = registry.get("legacy")
    seen = set()
    with openinfer.load(legacy.model_path(name)) as engine:
        for form, given, native in calls(name, "mixed", 300, seed):
            seen.add(form)
            found = engine.run({"x": given})["probabilities"]
            if form in ("float16", "integers"):  # those callers rounded before they called
                native = given.astype(native.dtype)
            assert found.tobytes() == engine.run({"x": np.ascontiguousarray(native)})["probabilities"].tobytes(), form
        noted = {conversion.found for conversion in engine.conversions}
    assert seen == set(FORMS) - ({"float16"} if name == PIPELINE else set())
    assert any("byte-swapped" in one for one in noted) and any("strides" in one for one in noted) and any("int64" in one for one in noted)


def test_what_would_lose_too_much_is_refused(seed):
    x, _ = DESK.draw(20, np.random.default_rng(seed))
    with openinfer.load(registry.get("legacy").model_path(NETWORK)) as engine:
        with pytest.raises(PrecisionError, match="feature's spread"):
            engine.run({"x": x})  # time stamps since 1970 in place of seconds of the day
        with pytest.raises(InputError):
            engine.run({"x": x.astype(np.complex128)})


@pytest.mark.parametrize(("name", "opset"), [(PIPELINE, 9), (NETWORK, 7)])
def test_models_are_old_and_right(name, opset, seed):
    legacy = registry.get("legacy")
    proto = onnx.load(legacy.model_path(name))
    assert proto.opset_import[0].version == opset
    x = prepared(name, DESK.draw(100, np.random.default_rng(seed))[0])
    with openinfer.load(legacy.model_path(name)) as engine:
        found = engine.run({"x": x})["probabilities"]
        assert not engine.statistics().fallback and found.dtype == x.dtype
    assert discrepancy(found, reference(widen(proto), {"x": x})["probabilities"]) <= legacy.models[name].tolerance


@pytest.mark.parametrize("name", MODELS)
def test_trained_models_keep_their_held_out_accuracy(name):
    legacy = registry.get("legacy")
    trace = legacy.traces("held_out", 10_000, model=name)[0]
    answers = openinfer.load(legacy.model_path(name)).run(dict(trace.inputs))["probabilities"].argmax(1)
    model = legacy.models[name]
    assert model.accuracy_interval[0] - 0.015 <= (answers == trace.labels).mean() <= model.accuracy_interval[1] + 0.015
    assert model.best_accuracy is not None and model.accuracy <= model.best_accuracy + 0.005


def test_float32_cannot_run_the_pipeline(seed):
    x, labels = DESK.draw(20_000, np.random.default_rng(seed))
    with openinfer.load(registry.get("legacy").model_path()) as engine:
        exact = (engine.run({"x": x})["probabilities"].argmax(1) == labels).mean()
        narrow = (engine.run({"x": x.astype(np.float32)})["probabilities"].argmax(1) == labels).mean()
    assert exact - narrow > 0.02
    assert prepared(NETWORK, x).dtype == np.float32


def test_the_export_holds_the_orders(tmp_path):
    written = registry.get("legacy").export(tmp_path, 20)
    lines = (tmp_path / "tuning-mixed-3101_orders.csv").read_text().splitlines()
    assert len(lines) == 21 and len(written) == 2 + 3 * 8
    with pytest.raises(WorkloadError, match="did you mean 'mixed'"):
        registry.get("legacy").generate("mix", 1, 1)
