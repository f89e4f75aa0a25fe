"""The arrivals, the sizes, the clicks, the feature store, the trained model."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from openinfer.workloads import registry, trace
from openinfer.workloads.recommendation import population, traffic
from openinfer.workloads.recommendation.arrivals import Arrivals
from openinfer.workloads.recommendation.zipf import Zipf
from scipy.optimize import minimize, minimize_scalar

import openinfer

EVENTS = 1_000_000


def seed() -> int:
    drawn = int(np.random.default_rng().integers(2**31))
    print(f"seed {drawn}")
    return drawn


@pytest.mark.parametrize("true", [Zipf(population.IDS, 4000), Zipf(population.POPULAR, population.USERS), traffic.SIZES])
def test_the_exponent_of_zipf_is_recovered_by_maximum_likelihood(true):
    drawn = true.draw(np.random.default_rng(seed()), EVENTS)
    law = type(true)
    found = minimize_scalar(lambda s: -law(s, true.count).log_likelihood(drawn), bounds=(0.1, 4.0), method="bounded")
    assert found.x == pytest.approx(true.exponent, rel=0.05)
    assert set(np.unique(drawn)) <= set(true.values.tolist()) and drawn.mean() == pytest.approx(true.mean, rel=0.02)


def test_the_parameters_of_the_arrivals_are_recovered_by_maximum_likelihood():
    true = traffic.REGIMES["day"]
    times, switches = true.simulate(EVENTS, seed())
    assert switches >= 4_000 and (np.diff(times) >= 0).all()

    def parameters(p):
        values = dict(zip(("quiet", "burst", "calm_s", "burst_s"), np.exp(p[:4]).tolist(), strict=True))
        return dataclasses.replace(true, swing=float(1 / (1 + np.exp(-p[4]))), **values)

    start = [*np.log([0.7 * true.quiet, 1.4 * true.burst, 1.5 * true.calm_s, 0.7 * true.burst_s]), 0.5]
    cost = lambda p: -parameters(p).log_likelihood(times) / EVENTS  # noqa: E731
    found = parameters(minimize(cost, start, method="L-BFGS-B", options={"ftol": 1e-11, "gtol": 1e-8}).x)
    np.testing.assert_allclose(dataclasses.astuple(found), dataclasses.astuple(true), rtol=0.05)


def test_the_likelihood_is_that_of_a_poisson_process_where_the_states_are_alike():
    times, _ = Arrivals(50.0, 50.0, 1.0, 2.0, 10.0, 0.0).simulate(2_000, seed())
    alike = Arrivals(50.0, 50.0, 1.0, 2.0, 10.0, 0.0).log_likelihood(times)
    assert alike == pytest.approx(2_000 * np.log(50.0) - 50.0 * times[-1], rel=1e-9)


def test_the_rate_of_a_day_is_the_stationary_one():
    day = traffic.REGIMES["day"]
    times, _ = day.simulate(400_000, seed())
    assert 400_000 / times[-1] == pytest.approx(day.rate, rel=0.05)
    night, noon = (((times % day.day_s) // (day.day_s / 4)) == quarter for quarter in (0, 2))
    lean = day.swing * 2 / np.pi  # of the curve's mean over a quarter
    assert noon.sum() / night.sum() == pytest.approx((1 + lean) / (1 - lean), rel=0.12)


def test_traces_are_the_same_each_time_and_look_up_their_share():
    found = registry.get("recommendation")
    one, again = found.traces("tuning", 2_000)[0], found.traces("tuning", 2_000)[0]
    assert one.digest() == again.digest() and len(one) == 2_000 and one.row_count == one.rows.sum() == len(one.labels)
    assert (one.look_ups >= 0).mean() == pytest.approx(traffic.BLOCKING, abs=0.05)
    assert not set(found.splits["tuning"]) & set(found.splits["held_out"])
    assert all((one.inputs["ids"][:, table] < rows).all() for table, rows in enumerate(population.ROWS))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_queries_survive_a_round_trip(tmp_path, suffix):
    original = traffic.generate("day", 60, seed())
    trace.write(original, tmp_path / f"t{suffix}")
    read = trace.read(tmp_path / f"t{suffix}")
    assert read.digest() == original.digest() and (read.labels == original.labels).all()
    part = read.between(20, 30)
    assert len(part) == 10 and (part.inputs["ids"] == original.inputs["ids"][original.span(20, 30)]).all()


def test_the_store_answers_what_the_trace_holds():
    requests = traffic.generate("even", 300, seed(), blocking=1.0)
    store = traffic.open_store()
    try:
        for index, user in enumerate(requests.look_ups.tolist()):
            wanted = requests.request(index)
            carried = store.blank(wanted)
            assert np.isnan(carried["dense"]).all() and (carried["ids"][:, population.OF_USER] == -1).all()
            found = store.look_up((user, carried))
            assert all(found[name].dtype == wanted[name].dtype and (found[name] == wanted[name]).all() for name in wanted)
    finally:
        store.close()


def test_the_trained_model_keeps_its_accuracy():
    found = registry.get("recommendation")
    draw = np.random.default_rng(seed())
    who, offered = population.users(draw, 100_000), population.items(draw, 100_000)
    probability = population.population().click(who, offered)
    clicks = (draw.random(len(who)) < probability).astype(np.int64)
    with openinfer.load(found.model_path()) as engine:
        rows = population.population().rows(who, offered)
        parts = [{name: array[at : at + 5_000] for name, array in rows.items()} for at in range(0, len(who), 5_000)]
        scores = np.concatenate([engine.run(part)["click"][:, 0] for part in parts])
        assert not engine.statistics().fallback
    measured, best = population.auc(scores, clicks), population.auc(probability, clicks)
    low, high = found.models["dlrm"].accuracy_interval
    assert low - 0.01 <= measured <= high + 0.01 and measured < best
    assert best == pytest.approx(found.models["dlrm"].best_accuracy, abs=0.01)


def test_auc_counts_ties_half():
    assert population.auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1])) == pytest.approx(3.5 / 4)


def test_the_export_holds_the_log_of_clicks(tmp_path):
    (path,) = traffic.export_raw(tmp_path, "t", "even", 20, seed())
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert all(len(line) == 40 and line[0] in "01" for line in lines) and len(lines) >= 20
