"""The sensor's clock, the clips, the networks of MLPerf Tiny, the trained models."""

from __future__ import annotations

import dataclasses
import wave

import numpy as np
import onnx
import pytest
from openinfer.workloads import registry
from openinfer.workloads.edge import machines, traffic, words
from openinfer.workloads.edge.frames import Frames
from openinfer.workloads.edge.spectra import log_mel, mel_bands
from openinfer.workloads.recommendation.population import auc
from scipy.optimize import minimize

import openinfer

EVENTS = 1_000_000
PARAMETERS = {"ds_cnn": 24_908, "autoencoder": 269_992}
CLASSIFIERS = {"ds_cnn": words.clips}


def seed() -> int:
    drawn = int(np.random.default_rng().integers(2**31))
    print(f"seed {drawn}")
    return drawn


def test_the_parameters_of_the_clock_are_recovered_by_maximum_likelihood():
    true = traffic.REGIMES["thermal"]
    times, hot = true.simulate(EVENTS, seed())
    assert np.diff(hot).sum() > 10_000

    def frames(p):
        rate, jitter, more, cool, warm = np.exp(p).tolist()
        return Frames(rate, jitter, 1 + more, 1 + cool, 1 + warm)

    start = np.log([0.8 * true.rate, 1.5 * true.jitter, 0.3, 200.0, 20.0])
    cost = lambda p: -frames(p).log_likelihood(times) / EVENTS  # noqa: E731
    found = frames(minimize(cost, start, method="L-BFGS-B", options={"ftol": 1e-9, "gtol": 1e-6}).x)
    np.testing.assert_allclose(dataclasses.astuple(found), dataclasses.astuple(true), rtol=0.05)


def test_a_steady_clock_has_the_likelihood_of_independent_gaps():
    steady = traffic.REGIMES["steady"]
    times, _ = steady.simulate(3_000, seed())
    logs = np.log(np.diff(times))
    centre = -np.log(steady.rate) - steady.jitter**2 / 2
    density = -0.5 * ((logs - centre) / steady.jitter) ** 2 - np.log(steady.jitter * np.sqrt(2 * np.pi)) - logs
    assert steady.log_likelihood(times) == pytest.approx(density.sum(), rel=1e-9)


@pytest.mark.parametrize("name", traffic.REGIMES)
def test_the_gaps_have_the_stationary_mean(name):
    clock = traffic.REGIMES[name]
    times, hot = clock.simulate(300_000, seed())
    assert times[0] == 0 and len(times) == len(hot) == 300_000 and (np.diff(times) > 0).all()
    assert times[-1] / (len(times) - 1) == pytest.approx(clock.mean_gap_s, rel=0.02)


def test_a_tone_is_loudest_in_the_band_that_holds_it():
    draw = np.random.default_rng(seed())
    bands = mel_bands(words.RATE, words.WINDOW, words.BANDS)
    for pitch in draw.uniform(200, 3500, 20):
        tone = np.sin(2 * np.pi * pitch * np.arange(words.SAMPLES) / words.RATE).astype(np.float32)[None]
        levels = log_mel(tone, words.RATE, words.WINDOW, words.STEP, words.FRAMES, words.BANDS)
        assert levels.shape == (1, words.FRAMES, words.BANDS)
        nearest = bands[round(pitch * words.WINDOW / words.RATE)].argmax()
        assert np.abs(levels.mean(axis=1).argmax() - nearest) <= 2


def test_other_models_have_traces_of_their_own_on_the_same_clock():
    found = registry.get("edge")
    main = found.traces("held_out", 400)[0]
    for name in found.models:
        one, again = (found.traces("held_out", 400, model=name)[0] for _ in range(2))
        assert one.digest() == again.digest() and (one.arrival_s == main.arrival_s).all()
        assert np.isfinite(one.inputs["x"]).all() and one.inputs["x"].dtype == np.float32
        assert len(np.unique(one.inputs["x"].reshape(400, -1), axis=0)) == 400


def test_keywords_differ_and_traces_are_the_same_each_time():
    spoken = words.vocabulary().reshape(words.KEYWORDS, -1)
    assert len(np.unique(spoken, axis=0)) == words.KEYWORDS
    found = registry.get("edge")
    one, again = found.traces("tuning", 600)[0], found.traces("tuning", 600)[0]
    assert one.digest() == again.digest() and len(one) == 600
    assert set(one.labels.tolist()) == set(range(words.CLASSES)) and np.isfinite(one.inputs["x"]).all()
    assert not set(found.splits["tuning"]) & set(found.splits["held_out"])
    assert len(np.unique(one.inputs["x"].reshape(600, -1), axis=0)) == 600


def test_the_export_holds_what_was_heard(tmp_path):
    drawn = seed()
    paths = traffic.export_raw(tmp_path, "t", "steady", 300, drawn)
    trace = traffic.generate("steady", 300, drawn)
    assert len(paths) == 20
    for index, path in enumerate(paths):
        with wave.open(str(path)) as file:
            heard = np.frombuffer(file.readframes(words.SAMPLES), "<i2").astype(np.float32)[None] / 32767 * 4
        assert path.stem.endswith(f"class{trace.labels[index]}")
        features = words.features(heard)[0]
        # 16 bits and clipping cost some accuracy; another clip is far away.
        assert np.abs(features - trace.inputs["x"][index]).mean() < 0.1 * np.abs(features - trace.inputs["x"][index + 1]).mean()


@pytest.mark.parametrize("name", PARAMETERS)
def test_models_have_the_parameters_of_mlperf_tiny(name):
    proto = onnx.load(registry.get("edge").model_path(name))
    floats = [w for w in proto.graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    assert sum(int(np.prod(w.dims)) for w in floats) == PARAMETERS[name]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_trained_classifiers_keep_their_accuracy(name):
    found = registry.get("edge")
    x, labels = CLASSIFIERS[name](4_000, np.random.default_rng(seed()))
    with openinfer.load(found.model_path(name), found.base) as engine:
        (answers,) = engine.run({"x": x}).values()
        (alone,) = engine.run({"x": x[:1]}).values()
        assert not engine.statistics().fallback
    low, high = found.models[name].accuracy_interval
    assert low - 0.025 <= (answers.argmax(axis=1) == labels).mean() <= high + 0.025
    assert (alone == answers[:1]).all()


def test_the_autoencoder_rebuilds_sound_machines_better_than_faulty_ones():
    found = registry.get("edge").models["autoencoder"]
    x, faulty = machines.recordings(4_000, 0.5, np.random.default_rng(seed()))
    with openinfer.load(registry.get("edge").model_path("autoencoder")) as engine:
        odd = ((engine.run({"x": x})["rebuilt"] - x) ** 2).mean(axis=1)
        assert not engine.statistics().fallback
    low, high = found.accuracy_interval
    assert low - 0.025 <= auc(odd, faulty) <= high + 0.025
