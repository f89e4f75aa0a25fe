"""Packets and attacks, damped statistics, hostile requests, the trained models."""

from __future__ import annotations

import dataclasses
import secrets

import numpy as np
import onnx
import pytest
from openinfer.tuner.oracle import expected_outputs
from openinfer.workloads import registry
from openinfer.workloads.security import attacks, capture, damped, packets, payloads, traffic
from openinfer.workloads.security.hostile import HOSTILE, VALUES, alarms, detected, spoil
from openinfer.workloads.security.packets import BENIGN, OFFICE, Traffic

import openinfer
from openinfer.frontend.float64 import discrepancy

PORTS = tuple(one.port for one in OFFICE)


def drawn() -> np.random.Generator:
    seed = secrets.randbits(32)
    print(f"{seed=}")
    return np.random.default_rng(seed)


def test_the_parameters_are_recovered_by_maximum_likelihood_from_a_million_packets():
    true = Traffic(40.0)
    table = true.simulate(56_000, np.random.default_rng(5))
    assert len(table) > 1_000_000
    found = packets.maximum_likelihood(table, PORTS)
    np.testing.assert_allclose([found.rate, found.zipf], [true.rate, true.zipf], rtol=0.05)
    for one, other in zip(found.applications, true.applications, strict=True):
        np.testing.assert_allclose(dataclasses.astuple(one), dataclasses.astuple(other), rtol=0.05)


def by_definition(values: np.ndarray, times: np.ndarray, now: float, decay: float) -> tuple[float, float, float]:
    """Weight, mean and deviation as sums over everything that was seen."""
    weights = 2.0 ** (-decay * (now - times))
    mean = (weights * values).sum() / weights.sum()
    return weights.sum(), mean, np.sqrt(abs((weights * values**2).sum() / weights.sum() - mean**2))


def test_damped_statistics_are_the_weighted_ones_of_the_whole_past():
    generator = drawn()
    times = np.cumsum(generator.exponential(0.2, 60))
    sizes, up = generator.uniform(54, 1500, 60), generator.random(60) < 0.5
    statistics = damped.Statistics()
    for i, (time, size) in enumerate(zip(times, sizes, strict=True)):
        ends = (1, 2, 10, 20) if up[i] else (2, 1, 20, 10)
        found = statistics.update(float(time), *ends, float(size))
        own, other = up[: i + 1] == up[i], up[: i + 1] != up[i]
        seen, gaps = times[: i + 1][own], np.diff(times[: i + 1][own], prepend=times[: i + 1][own][:1])
        for column, decay in enumerate(damped.DECAYS):
            expected = by_definition(sizes[: i + 1][own], seen, time, decay)
            wanted = [*expected, *expected, *by_definition(gaps, seen, time, decay), *expected]  # source, channel, jitter, socket
            np.testing.assert_allclose(found[:12, column], wanted, rtol=1e-6, atol=1e-4)
            magnitude, _, covariance, correlation = found[12:16, column]
            if other.any():
                past = times[: i + 1][other]
                far = by_definition(sizes[: i + 1][other], past, past[-1], decay)
                np.testing.assert_allclose(magnitude, np.hypot(expected[1], far[1]), rtol=1e-6)
            assert abs(correlation) <= 1 and np.isfinite(covariance)


@pytest.mark.parametrize("regime", sorted(traffic.PLACES))
def test_every_attack_is_in_the_traces_and_benign_packets_are_most_of_a_quiet_one(regime):
    traces = [traffic.generate(regime, 12_000, seed) for seed in (301, 401, 402, 403)]
    again = traffic.generate(regime, 12_000, 301)
    assert np.array_equal(traces[0].inputs["x"], again.inputs["x"], equal_nan=True)
    assert np.array_equal(traces[0].arrival_s, again.arrival_s)
    x, labels = np.concatenate([one.inputs["x"] for one in traces]), np.concatenate([one.labels for one in traces])
    counts = np.bincount(labels, minlength=6)
    assert (counts > 0).all() and (regime == "assault" or counts[BENIGN] > len(labels) / 2)
    assert 0.005 < counts[HOSTILE] / len(labels) < 0.02
    assert np.isfinite(x[labels != HOSTILE]).all() and x.shape[1] == damped.FEATURES == 100


def test_scripts_send_what_they_say():
    generator = drawn()
    for label, (script, count) in enumerate(attacks.SCRIPTS, 1):
        table = script(generator, count)
        assert len(table) == count and (table["label"] == label).all() and (np.diff(table["time"]) >= 0).all()
        assert ((table["size"] >= packets.HEADER) & (table["size"] <= packets.FULL)).all()
    scanned = attacks.scan(generator, 300)
    asks = scanned[scanned["flags"] == packets.SYN]
    assert len(np.unique(asks["target_port"])) == len(asks) == 150 and len(np.unique(asks["target"])) == 1
    flooded = attacks.flood(generator, 1500)
    assert 40 < len(np.unique(flooded["source"])) <= 50 and len(np.unique(flooded["target"])) == 1


def test_a_capture_holds_the_packets(tmp_path):
    table = traffic.packets("office", 200, 7)
    capture.write(table, tmp_path / "t.pcap")
    data = (tmp_path / "t.pcap").read_bytes()
    assert data[:4] == bytes.fromhex("4d3cb2a1") and len(data) == 24 + len(table) * 70
    first = data[24:94]
    assert int.from_bytes(first[12:16], "little") == int(table["size"][0])
    assert int.from_bytes(first[50:52], "big") == table["source_port"][0] and first[63] == table["flags"][0]


@pytest.mark.parametrize("name", ["flow_perceptron", "autoencoder"])
@pytest.mark.parametrize("mode", ["off", "process"])
def test_hostile_requests_are_answered_as_the_oracle_answers_them(name, mode):
    generator = drawn()
    x = traffic.generate("office", 300, int(generator.integers(1 << 30))).inputs["x"].copy()
    for value in VALUES:  # each alone, and in company
        row = generator.integers(300)
        x[row, generator.integers(100)] = value
        x[generator.integers(300)] = value
    path = registry.get("security").model_path(name)
    with openinfer.load(path, {"sandbox": {"mode": mode}}) as engine:
        (output,) = engine.run({"x": x}).values()
        alone = np.concatenate([next(iter(engine.run({"x": row[None]}).values())) for row in x])
        (expected,) = expected_outputs(onnx.load(path), engine.inputs, {"x": x}).values()
    assert np.array_equal(output.view(np.uint32), alone.view(np.uint32))
    assert discrepancy(output, expected) <= 1e-5
    assert np.isnan(output[np.isnan(x).any(1)]).all() and np.isfinite(output[~np.isnan(x).any(1)]).all()


def test_a_score_that_is_no_number_raises_an_alarm():
    assert alarms(np.array([np.nan, np.inf, 0.6, 0.5, -np.inf]), 0.5).tolist() == [True, True, True, False, False]
    rows, labels = np.zeros((4000, 100), np.float32), np.zeros(4000, np.int64)
    spoil(rows, labels, drawn())
    touched = ((rows != 0) | np.signbit(rows)).any(1)
    assert np.array_equal(labels == HOSTILE, touched) and 5 < touched.sum() < 120


@pytest.mark.parametrize("name", ["flow_perceptron", "autoencoder"])
def test_detection_is_what_training_measured(name):
    security = registry.get("security")
    traces = [one for regime in security.regimes for one in security.traces("held_out", 12_000, regime)]
    x, labels = np.concatenate([t.inputs["x"] for t in traces]), np.concatenate([t.labels for t in traces])
    x, labels = x[labels != HOSTILE], labels[labels != HOSTILE]
    with openinfer.load(security.model_path(name)) as engine:
        (output,) = engine.run({"x": x}).values()
    found = detected(1 - output[:, 0] if name == "flow_perceptron" else output[:, 0], labels, 0.01)
    low, high = security.models[name].accuracy_interval
    assert low - 0.1 <= found <= high + 0.1


def test_the_byte_network_finds_droppers():
    security = registry.get("security")
    trace = security.traces("held_out", 1000, "assault", "byte_network")[0]
    assert set(trace.inputs) == {"bytes"} and trace.inputs["bytes"].shape == (1000, payloads.LENGTH)
    path = security.model_path("byte_network")
    with openinfer.load(path) as engine:
        score = engine.run(dict(trace.inputs))["malicious"]
        assert not engine.statistics().fallback
        few = {"bytes": trace.inputs["bytes"][:40]}
        assert discrepancy(score[:40], expected_outputs(onnx.load(path), engine.inputs, few)["malicious"]) <= 1e-5
    assert detected(score[:, 0], trace.labels, 0.01) >= security.models["byte_network"].accuracy_interval[0] - 0.05
