"""The order flow, the book it drives, the features, the trained models."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from openinfer.workloads import registry, trace
from openinfer.workloads.hft.book import DEPTH, TICK
from openinfer.workloads.hft.hawkes import Hawkes
from openinfer.workloads.hft.market import features, regime, session
from openinfer.workloads.replay import replay_inline
from scipy.optimize import minimize

import openinfer
from openinfer.errors import WorkloadError


def test_hawkes_parameters_are_recovered_by_maximum_likelihood():
    true = Hawkes(np.array([3.0]), np.array([[0.6]]), 5.0)
    times, types = true.simulate(20_000, 11)

    def cost(p):
        base, branching, decay = np.exp(p)
        return -Hawkes(np.array([base]), np.array([[branching]]), decay).log_likelihood(times, types)

    found = np.exp(minimize(cost, np.log([1.0, 0.3, 2.0]), method="Nelder-Mead", options={"maxiter": 120}).x)
    np.testing.assert_allclose(found, [3.0, 0.6, 5.0], rtol=0.12)


@pytest.mark.parametrize("name", ["quiet", "burst"])
def test_event_rate_is_the_stationary_one(name):
    flow = regime(name)
    times, _ = flow.simulate(40_000, 5)
    assert 40_000 / times[-1] == pytest.approx(flow.rate, rel=0.15)


@pytest.mark.parametrize("name", ["quiet", "burst"])
def test_the_book_is_never_crossed_nor_empty(name):
    day = session(regime(name), 3000, 3)
    asks, bids = day.levels[:, :, 0], day.levels[:, :, 2]
    assert (asks[:, 0] > bids[:, 0]).all()
    assert (np.diff(asks, axis=1) > 0).all() and (np.diff(bids, axis=1) < 0).all()
    assert (day.levels[:, :, [1, 3]] > 0).all()
    assert day.order_book().shape == (3000, 4 * DEPTH)


def test_messages_account_for_every_share():
    day = session(regime("burst"), 3000, 4)
    time, kind, order, size, price, direction = day.messages.T
    assert set(kind) <= {1, 2, 3, 4} and set(direction) == {-1, 1}
    assert (np.diff(time) >= 0).all() and (price % TICK == 0).all() and (size > 0).all()
    added = {o: s for o, s, k in zip(order, size, kind, strict=True) if k == 1}
    removed: dict[float, float] = {}
    for o, s, k in zip(order, size, kind, strict=True):
        if k != 1 and o in added:
            removed[o] = removed.get(o, 0) + s
    assert removed and all(removed[o] <= added[o] for o in removed)


def test_traces_are_deterministic_and_splits_differ():
    hft = registry.get("hft")
    one, again = hft.traces("tuning", 500)[0], hft.traces("tuning", 500)[0]
    assert (one.inputs["x"] == again.inputs["x"]).all() and (one.arrival_s == again.arrival_s).all()
    assert not set(hft.splits["tuning"]) & set(hft.splits["held_out"])
    assert np.isfinite(features(session(regime("quiet"), 500, 1))).all()


def test_trained_models_keep_their_held_out_accuracy():
    hft = registry.get("hft")
    traces = [one for name in hft.regimes for one in hft.traces("held_out", 10_000, name)]
    x, labels = np.concatenate([t.inputs["x"] for t in traces]), np.concatenate([t.labels for t in traces])
    probabilities = openinfer.load(hft.model_path("tick_mlp")).run({"x": x})["probabilities"]
    low, high = hft.models["tick_mlp"].accuracy_interval
    accuracy = (probabilities.argmax(1) == labels).mean()
    majority = np.bincount(labels).max() / len(labels)
    assert low - 0.02 <= accuracy <= high + 0.02
    assert accuracy > majority + 0.03


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_traces_survive_a_round_trip(tmp_path, suffix):
    original = registry.get("hft").traces("tuning", 50)[0]
    trace.write(original, tmp_path / f"t{suffix}")
    read = trace.read(tmp_path / f"t{suffix}")
    assert (read.inputs["x"] == original.inputs["x"]).all() and read.inputs["x"].dtype == np.float32
    assert (read.arrival_s == original.arrival_s).all() and (read.labels == original.labels).all()


def test_malformed_traces_are_named(tmp_path):
    (tmp_path / "t.npz").write_bytes(b"no")
    (tmp_path / "t.parquet").write_bytes(b"no")
    for path in ("t.npz", "t.parquet", "none.npz", "t.csv"):
        with pytest.raises(WorkloadError):
            trace.read(tmp_path / path)
    with pytest.raises(WorkloadError, match="differ in length"):
        trace.Trace({"x": np.zeros(3)}, np.zeros(2))
    with pytest.raises(WorkloadError, match="ascending"):
        trace.Trace({"x": np.zeros(2)}, np.array([1.0, 0.0]))
    with pytest.raises(WorkloadError, match="differ in length"):
        trace.Trace({"x": np.zeros(3)}, labels=np.zeros(2))
    with pytest.raises(WorkloadError, match="did you mean 'hft'"):
        registry.get("htf")


def damaged_archives(folder):
    """Files named npz, and a word of what is wrong with each."""
    np.save(folder / "array.npy", np.zeros((2, 3)))
    (folder / "array.npy").rename(folder / "array.npz")
    yield "array.npz", "not an npz file"
    (folder / "empty.npz").write_bytes(b"")
    yield "empty.npz", "not an npz file"
    np.savez(folder / "whole.npz", x=np.random.default_rng().standard_normal((50, 3)))
    whole = (folder / "whole.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[:-30])
    yield "cut.npz", "cut short"
    (folder / "flipped.npz").write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    yield "flipped.npz", "CRC"
    with zipfile.ZipFile(folder / "text.npz", "w") as archive:
        archive.writestr("x.npy", "no array")
    yield "text.npz", "'x' is not an array"
    np.savez(folder / "object.npz", x=np.array([{}], object))
    yield "object.npz", "allow_pickle"


def test_damaged_archives_are_one_line(tmp_path):
    for name, word in damaged_archives(tmp_path):
        for read in (trace.read, trace.read_npz):
            with pytest.raises(WorkloadError) as raised:
                read(tmp_path / name)
            message = str(raised.value)
            assert word in message and "; give" in message and "\n" not in message, message


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"x": np.float32(1)}, "x: found a single value"),
        ({"x": np.zeros(1), "labels": np.int64(1)}, "labels: found a single value"),
        ({"x": np.zeros(1), "arrival_s": np.float64(1)}, r"found float64 of shape \(\)"),
        ({"x": np.zeros(2), "arrival_s": np.zeros((2, 1))}, r"found float64 of shape \(2, 1\)"),
        ({"x": np.zeros(2), "arrival_s": np.array(["a", "b"])}, "found <U1 of shape"),
        ({"x": np.zeros(2), "arrival_s": np.zeros(2, "M8[ns]")}, "datetime64.*seconds from the start"),
        ({"x": np.zeros(2), "arrival_s": np.array([False, True])}, "found bool"),
        ({"x": np.zeros(2), "arrival_s": np.array([1, 0], np.uint8)}, "ascending"),
    ],
)
def test_traces_of_the_wrong_shape_or_type_are_refused(tmp_path, arrays, word):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(WorkloadError, match=word):
        trace.read(tmp_path / "t.npz")


class Clock:
    """Advances a little at every look, and by `cost` at every call served."""

    def __init__(self, cost: int) -> None:
        self.now, self.cost, self.calls = 0, cost, []

    def __call__(self) -> int:
        self.now += 10
        return self.now

    def serve(self, first: int, count: int) -> None:
        self.now += self.cost
        self.calls.append((first, count))


def test_replay_counts_from_the_intended_time():
    clock = Clock(cost=1000)
    times = replay_inline(np.array([0, 100e-9, 5000e-9]), clock.serve, clock=clock)
    assert clock.calls == [(0, 1), (1, 1), (2, 1)]
    assert times.corrected_ns[1] > times.raw_ns[1] > 1000  # the second request was due while the first ran
    assert times.start_ns[2] >= 5000


def test_micro_batches_join_what_has_arrived():
    clock = Clock(cost=1000)
    replay_inline(np.array([0, 100, 200, 300, 9000]) * 1e-9, clock.serve, max_batch=3, clock=clock)
    assert clock.calls == [(0, 1), (1, 3), (4, 1)]
    clock = Clock(cost=10)
    replay_inline(np.array([0, 1000, 2000]) * 1e-9, clock.serve, max_batch=3, max_delay_us=1, clock=clock)
    assert clock.calls == [(0, 2), (2, 1)]


def test_the_export_holds_models_traces_and_lobster_files(tmp_path):
    written = registry.get("hft").export(tmp_path / "hft", 300)
    assert len(written) == 2 + 3 * 8 and all(path.stat().st_size for path in written)
    messages = np.loadtxt(tmp_path / "hft" / "tuning-burst-101_message_10.csv", delimiter=",")
    books = np.loadtxt(tmp_path / "hft" / "tuning-burst-101_orderbook_10.csv", delimiter=",")
    assert messages.shape[1] == 6 and books.shape == (len(messages), 4 * DEPTH)
    assert (books[:, 0] > books[:, 2]).all()  # the best ask lies above the best bid
    assert len(trace.read(tmp_path / "hft" / "held_out-quiet-203.parquet")) == 300
