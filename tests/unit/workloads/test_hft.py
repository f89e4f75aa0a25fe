"""The order flow, the book it drives, the features, the trained models."""

from __future__ import annotations

import zipfile

import numpy as np
import onnx
import pytest
from openinfer.workloads import registry, trace
from openinfer.workloads.hft.book import DEPTH, TICK
from openinfer.workloads.hft.hawkes import Hawkes, memory
from openinfer.workloads.hft.market import KINDS, NEWS, features, orders, regime, session
from openinfer.workloads.hft.traffic import OTHERS
from openinfer.workloads.hft.windows import feature_windows
from openinfer.workloads.replay import replay_inline
from scipy.optimize import minimize_scalar

import openinfer
from openinfer.errors import WorkloadError
from openinfer.frontend.float64 import discrepancy, reference, widen


@pytest.mark.parametrize("name", ["quiet", "open", "news", "burst"])
def test_order_flow_is_recovered_by_maximum_likelihood(name):
    """Base rate, children per order, orders per shock and decay of a regime, from a million events. For a given decay the others are found
    by Newton's method: the likelihood is concave in them. An opening is one shock a session, so there are many sessions.
    """
    seed = int(np.random.SeedSequence().entropy) % 2**32
    print(f"seed = {seed}")
    true = regime(name)
    size, count = len(true.base), 50 if name == "open" else 1
    children = np.abs(np.linalg.eigvals(true.branching[:KINDS, :KINDS])).max()
    shares, kernel = true.base[:KINDS] / true.base[:KINDS].sum(), true.branching[:KINDS, :KINDS] / children
    days = []
    for index in range(count):
        times, types = true.simulate(1_000_000 // count, seed + index, NEWS if name == "open" else None)
        if name == "open":
            times, types = np.append(0.0, times), np.append(NEWS, types)
        days.append((times, types, types < KINDS))

    def best_scales(decay):
        columns, total = [], np.zeros(3)
        for times, types, ordered in days:
            past, kinds = memory(times, types, size, decay)[ordered], types[ordered]
            shocked = past[:, NEWS] * shares[kinds] if size > KINDS else np.zeros(len(kinds))
            columns.append(np.stack([shares[kinds], np.einsum("kj,kj->k", past[:, :KINDS], kernel[kinds]), shocked]))
            left = 1 - np.exp(-decay * (times[-1] - times))
            total += [times[-1], (kernel.sum(0)[kinds] * left[ordered]).sum(), left[~ordered].sum()]
        used = slice(3 if size > KINDS else 2)
        columns, total = np.concatenate(columns, axis=1)[used], total[used]
        p = np.array([columns.shape[1] / total[0] / 2, 0.3, 100.0])[used]
        for _ in range(60):
            parts = columns / (p @ columns)
            step = np.linalg.solve(parts @ parts.T, parts.sum(1) - total)
            p = np.maximum(p + step, p / 2)
            if np.abs(step / p).max() < 1e-6:
                break
        return p, np.log(p @ columns).sum() - p @ total

    around = np.log(true.decay) + np.array([-1.5, 1.2])
    outcome = minimize_scalar(
        lambda log_decay: -best_scales(np.exp(log_decay))[1], bounds=around, method="bounded", options={"xatol": 3e-3}
    )
    decay = float(np.exp(outcome.x))
    scales, value = best_scales(decay)
    wanted = [true.base[:KINDS].sum(), children, *([true.branching[:KINDS, NEWS].sum()] if size > KINDS else [])]
    np.testing.assert_allclose([*scales, decay], [*wanted, true.decay], rtol=0.05)
    if size == KINDS:
        ((times, types, _),) = days
        assert value == pytest.approx(Hawkes(scales[0] * shares, scales[1] * kernel, decay).log_likelihood(times, types), rel=1e-9)


def test_news_and_the_bell_make_orders_and_are_none():
    flow = regime("news")
    _, types = flow.simulate(20_000, 8)
    _, kinds = orders(flow, 5000, 8)
    assert (types == NEWS).any() and len(kinds) == 5000 and (kinds < KINDS).all()
    opened, _ = orders(regime("open"), 20_000, 8)
    calm = regime("open").base.sum() / (1 - 0.6)
    assert (opened < 0.05).sum() > 20 * 0.05 * calm  # the first 50 ms
    assert (np.diff(opened)[-5000:]).mean() == pytest.approx(1 / calm, rel=0.3)


def test_memory_is_the_sum_over_the_past():
    generator = np.random.default_rng()
    times, types = np.sort(generator.uniform(0, 5, 300)), generator.integers(0, 3, 300)
    found, decay = memory(times, types, 3, 4.0), 4.0
    for k in (0, 1, 2, 150, 299):
        past = decay * np.exp(-decay * (times[k] - times[:k]))
        np.testing.assert_allclose(found[k], [past[types[:k] == j].sum() for j in range(3)], rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_windowed_models_agree_with_float64_and_keep_their_accuracy(name):
    hft = registry.get("hft")
    traces = [one for regime_name in ("quiet", "burst") for one in hft.traces("held_out", 1000, regime_name, name)[:2]]
    x, labels = np.concatenate([t.inputs["x"] for t in traces]), np.concatenate([t.labels for t in traces])
    with openinfer.load(hft.model_path(name)) as engine:
        found = np.concatenate([engine.run({"x": x[i : i + 500]})["probabilities"] for i in range(0, len(x), 500)])
        alone = [engine.run({"x": x[i : i + 1]})["probabilities"] for i in range(5)]
        assert not engine.statistics().fallback
    assert b"".join(one.tobytes() for one in alone) == found[:5].tobytes()
    expected = reference(widen(onnx.load(hft.model_path(name))), {"x": x[:5]})["probabilities"]
    assert discrepancy(found[:5], expected) <= hft.models[name].tolerance
    low, high = hft.models[name].accuracy_interval
    assert low - 0.06 <= (found.argmax(1) == labels).mean() <= high + 0.06


def test_windows_slide_by_one_event():
    day, last = session(regime("quiet"), 300, 3), np.arange(200, 210)
    rows = feature_windows(day, last)
    assert rows.shape == (10, 50, 40)
    assert (rows[1:, :-1] == rows[:-1, 1:]).all() and (rows[:, -1] == features(day)[last]).all()


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
    assert len(written) == 3 + 4 * 16 and all(path.stat().st_size for path in written)
    messages = np.loadtxt(tmp_path / "hft" / "tuning-burst-101_message_10.csv", delimiter=",")
    books = np.loadtxt(tmp_path / "hft" / "tuning-burst-101_orderbook_10.csv", delimiter=",")
    assert messages.shape[1] == 6 and books.shape == (len(messages), 4 * DEPTH)
    assert (books[:, 0] > books[:, 2]).all()  # the best ask lies above the best bid
    assert len(trace.read(tmp_path / "hft" / "held_out-quiet-203.parquet")) == 300
