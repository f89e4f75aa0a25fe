"""The engine inside a budget: refused at load before anything is compiled, at the budget one request fails and the next succeeds."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import mlp, model
from onnx import TensorProto, helper

import openinfer
from openinfer.cli.check import parse_bytes
from openinfer.errors import ConfigError, MemoryBudgetError

SCRIPT = Path(sys.executable).parent / "openinfer"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def _wide(width=4096):
    """Elementwise on rows: its arena grows with the batch, its weights are nothing."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"], axis=-1),
        helper.make_node("Softmax", ["a"], ["b"], axis=-1),
        helper.make_node("Softmax", ["b"], ["y"], axis=-1),
    ]
    kind = (TensorProto.FLOAT, ["batch", width])
    return model(nodes, {"x": kind}, {"y": kind})


def test_a_model_that_cannot_fit_is_refused_before_it_is_compiled(tmp_path, monkeypatch):
    from openinfer.codegen import compile as compiler

    def refuse(*_):
        raise AssertionError("compiled")

    monkeypatch.setenv("OPENINFER_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "compile_program", refuse)
    proto = mlp((40, 512, 512, 3), seed=3)
    for budget in (100_000, 2_000_000):  # less than the constants; less than these and their packed form
        with pytest.raises(MemoryBudgetError, match=r"allowed: .* raise the budget"):
            openinfer.load(proto, {"memory": {"budget_bytes": budget}})


def test_at_the_budget_one_request_fails_and_the_next_succeeds(seed):
    x = np.random.default_rng(seed).standard_normal((64, 4096)).astype(np.float32)
    free = openinfer.load(_wide())
    expected = free.run({"x": x})["y"]
    engine = openinfer.load(_wide(), {"memory": {"budget_bytes": 5 << 20}})
    for _ in range(3):
        with pytest.raises(MemoryBudgetError, match="'call of x"):
            engine.run({"x": np.zeros((512, 4096), np.float32)})
        assert (engine.run({"x": x})["y"] == expected).all()
    assert engine.statistics().memory.high_water_bytes <= 5 << 20
    assert engine.statistics().memory.refusals >= 1


def test_shapes_that_take_turns_share_the_budget(seed):
    rng = np.random.default_rng(seed)
    engine = openinfer.load(_wide(), {"memory": {"budget_bytes": 6 << 20}})
    free = openinfer.load(_wide())
    for batch in rng.permutation(np.repeat(np.arange(40, 64), 3)).tolist():  # the arenas of all shapes together are far above the budget
        x = rng.standard_normal((batch, 4096)).astype(np.float32)
        assert (engine.run({"x": x})["y"] == free.run({"x": x})["y"]).all()
    statistics = engine.statistics()
    assert statistics.memory.high_water_bytes <= 6 << 20
    assert free.statistics().memory.held_bytes > statistics.memory.held_bytes


def test_dropped_calls_give_their_arenas_back():
    engine = openinfer.load(_wide())
    calls = [engine.bind({"x": np.zeros((16, 4096), np.float32)}) for _ in range(4)]
    held = engine.statistics().memory
    assert held.live_leases == 4 and held.owners == {"call of x [16, 4096]": held.requested_bytes}
    del calls
    gc.collect()
    assert engine.statistics().memory.live_leases == 0


def test_run_allocates_its_outputs_and_nothing_else(seed):
    engine = openinfer.load(_wide())
    x = np.random.default_rng(seed).standard_normal((32, 4096)).astype(np.float32)
    inputs = {"x": x}
    kept = [engine.run(inputs)["y"] for _ in range(3)]
    gc.collect()
    before = engine.statistics().memory
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        kept = [engine.run(inputs)["y"] for _ in range(20)]
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    outputs = sum(array.nbytes for array in kept)
    assert outputs <= held - start < outputs + 20_000 and peak - start < outputs + 20_000
    after = engine.statistics().memory
    assert (after.leases, after.misses, after.leased_bytes) == (before.leases, before.misses, before.leased_bytes)


def test_checks_cover_the_arenas_of_an_engine(monkeypatch, seed):
    x = np.random.default_rng(seed).standard_normal((5, 40)).astype(np.float32)
    plain = openinfer.load(mlp()).run({"x": x})["probabilities"]
    monkeypatch.setenv("OPENINFER_CHECKS", "1")
    engine = openinfer.load(mlp())
    assert (engine.run({"x": x})["probabilities"] == plain).all()
    assert (engine.run({"x": x})["probabilities"] == plain).all()  # from the runner's own arena, poisoned before
    engine._backend._executor.memory.verify()


def test_threads_at_the_budget_get_answers_or_the_error(seed):
    rng = np.random.default_rng(seed)
    free = openinfer.load(_wide())
    cases = [rng.standard_normal((batch, 4096)).astype(np.float32) for batch in (20, 30, 40, 50)]
    expected = [free.run({"x": x})["y"] for x in cases]
    engine = openinfer.load(_wide(), {"memory": {"budget_bytes": 3 << 20}})
    answered, wrong = [], []

    def work(which):
        for _ in range(10):
            try:
                got = engine.run({"x": cases[which]})["y"]
            except MemoryBudgetError:
                continue
            (answered if (got == expected[which]).all() else wrong).append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answered and not wrong
    assert engine.statistics().memory.high_water_bytes <= 3 << 20
    assert (engine.run({"x": cases[0]})["y"] == expected[0]).all()


def test_check_says_whether_a_model_fits(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(mlp(), path)
    fits = subprocess.run([SCRIPT, "check", path, "--memory", "64MB"], capture_output=True, text=True)
    assert fits.returncode == 0 and "fits into 64MB" in fits.stdout and "1.000×" in fits.stdout
    small = subprocess.run([SCRIPT, "check", path, "--memory", "20kB"], capture_output=True, text=True)
    assert small.returncode == 1 and small.stdout.startswith("does not fit into 20kB: ") and small.stdout.count("\n") == 1
    machine = subprocess.run([SCRIPT, "check", path, "--memory", "20kB", "--json"], capture_output=True, text=True)
    assert machine.returncode == 1 and json.loads(machine.stdout)["fits"] is False
    wrong = subprocess.run([SCRIPT, "check", path, "--memory", "lots"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "allowed: a number" in wrong.stderr


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512 << 20), ("1.5 GiB", 3 << 29), ("64k", 65536), ("1048576", 1 << 20), ("2tb", 2 << 40)]
)
def test_sizes_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "0", "1e9", "12 parsecs", "9" * 400, "nan", "1_000"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="allowed"):
        parse_bytes(text)
