"""A whole study on a small model: search, final race, verdict, files; killed and resumed, and refused where it should be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from models import mlp
from openinfer.profiles.study_record import StudyRecord
from openinfer.tuner.journal import read_journal
from openinfer.tuner.study import parse_budget, tune
from openinfer.workloads.trace import Trace, write

import openinfer
from openinfer.config import Config
from openinfer.errors import InputError, ProvenanceError, StudyError, WorkloadError

ROUNDS = 3


def material(folder: Path) -> dict[str, str]:
    """A model and a trace of the user's own."""
    onnx.save(mlp(), folder / "m.onnx")
    rng = np.random.default_rng(0)
    requests = rng.standard_normal((2000, 40)).astype(np.float32)
    write(Trace({"x": requests}, np.cumsum(rng.exponential(2e-5, 2000))), folder / "t.parquet")
    return {"model": str(folder / "m.onnx"), "trace": str(folder / "t.parquet")}


@pytest.fixture(scope="module", autouse=True)
def short_races():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("openinfer.tuner.final.ROUNDS", ROUNDS)
        patch.setattr("openinfer.tuner.final.TURNS", 2)
        yield


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    given = material(folder)
    seen = []
    done = tune(
        **given,
        slo="p99<1s",
        budget="2trials",
        output=folder / "m.toml",
        progress=lambda phase, left, best: seen.append(phase),
    )
    return done, folder, seen


def test_it_leaves_a_configuration_that_loads(study):
    done, folder, seen = study
    assert done.record.verdict.kind in ("ADOPT", "KEEP DEFAULT", "INCONCLUSIVE")
    config = Config.load(folder / "m.toml")
    assert config.evidence["verdict"] == done.record.verdict.kind
    openinfer.load(folder / "m.onnx", config=folder / "m.toml").run({"x": np.zeros((1, 40), np.float32)})
    onnx.save(mlp(seed=1), folder / "other.onnx")
    with pytest.raises(ProvenanceError):
        openinfer.load(folder / "other.onnx", config=folder / "m.toml")
    assert {"search", "finalists", "final race"} == set(seen)


def test_the_record_can_be_read_again(study):
    done, _, _ = study
    record = StudyRecord.load(done.folder / "study.json")
    assert record.verdict == done.record.verdict and len(record.trials) == 2
    assert next(check.status for check in record.slos) == "met"
    assert record.trust.output_passed and record.trust.output_max_error <= 1e-5
    assert len(done.trials) == 2
    kinds = [line["kind"] for line in read_journal(done.folder / "journal.jsonl")]
    assert kinds == ["study", "trial", "trial", "finalists", *["round"] * ROUNDS, "session", "judged"]
    assert record.trust.rounds == ROUNDS and record.trust.steady_state == (record.trust.drift <= 0.1)
    assert [step.name for step in record.steps] == list(read_journal(done.folder / "journal.jsonl")[3]["path"])


def test_a_resumed_study_keeps_its_trials(study):
    _, folder, _ = study
    before = [line for line in read_journal(folder / "m.study" / "journal.jsonl") if line["kind"] == "trial"]
    journal = folder / "m.study" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]) + lines[2][:20])  # killed in the middle of the second trial
    arguments = {"model": str(folder / "m.onnx"), "trace": str(folder / "t.parquet"), "budget": "2trials", "output": folder / "m.toml"}
    done = tune(**arguments, resume=True)
    assert json.dumps(before[0]["knobs"]) == json.dumps(done.record.trials[0].knobs)
    assert before[1]["knobs"] == done.record.trials[1].knobs  # the sampler proposes the same again
    with pytest.raises(StudyError, match="differs in seed"):
        tune(**arguments, resume=True, seed=7)


def test_kill_at_any_stage_loses_nothing(tmp_path):
    given = material(tmp_path)
    journal = tmp_path / "m.study" / "journal.jsonl"
    command = [
        Path(sysconfig.get_path("scripts")) / "openinfer",
        "tune",
        "--model",
        "m.onnx",
        "--trace",
        "t.parquet",
        "--budget",
        "2trials",
    ]
    command += ["--output", "m.toml"]
    known: list[dict] = []
    for stage in ("trial", "round"):
        child = subprocess.Popen([*command, "--resume"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not any(line["kind"] == stage for line in (read_journal(journal) if journal.exists() else [])):
            assert child.poll() is None and time.monotonic() < deadline, child.stderr.read().decode()
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        assert not (tmp_path / "m.toml").exists()  # nothing half-written
        found = list(read_journal(journal))
        assert found[: len(known)] == known
        known = found
    done = tune(**given, budget="2trials", output=tmp_path / "m.toml", resume=True)
    final = list(read_journal(journal))
    assert final[: len(known)] == known
    assert [line["kind"] for line in final].count("round") == max(ROUNDS, [line["kind"] for line in known].count("round"))
    assert len(done.record.trials) == 2


@pytest.mark.parametrize("text", ["", "60", "0s", "-1s", "forty", "60 hours"])
def test_budgets_that_are_not_understood(text):
    with pytest.raises(StudyError, match="allowed: a time"):
        parse_budget(text)


def test_budgets():
    assert parse_budget("60s")[0] == 60 and parse_budget("2m")[0] == 120 and parse_budget("40trials")[1] == 40


def test_a_trace_of_another_model_is_refused(tmp_path):
    material(tmp_path)
    write(Trace({"z": np.zeros((10, 40), np.float32)}), tmp_path / "z.npz")
    write(Trace({"x": np.full((10, 40), 2**24 + 1)}), tmp_path / "long.npz")
    for name, kind, words in (
        ("z", WorkloadError, "found a trace of z"),
        ("long", InputError, "found int64, allowed: float32; a value is beyond"),
    ):
        with pytest.raises(kind, match=words):
            tune(model=str(tmp_path / "m.onnx"), trace=str(tmp_path / f"{name}.npz"), output=tmp_path / "m.toml")
        assert not (tmp_path / "m.toml").exists()


def test_resuming_with_other_traffic_is_refused_and_changes_nothing(study):
    _, folder, _ = study
    before = {path: path.read_bytes() for path in (folder / "m.study").iterdir()}
    with pytest.raises(StudyError, match="differs in traces"):
        tune(model=str(folder / "m.onnx"), budget="2trials", output=folder / "m.toml", resume=True)
    onnx.save(mlp(seed=3), folder / "elsewhere.onnx")
    with pytest.raises(StudyError, match=r"is a study of .*m\.onnx, found .*elsewhere\.onnx"):
        tune(model=str(folder / "elsewhere.onnx"), budget="2trials", output=folder / "m.toml")
    assert {path: path.read_bytes() for path in (folder / "m.study").iterdir()} == before


def test_a_judged_race_gets_no_further_rounds(study, monkeypatch):
    done, folder, _ = study
    earlier_s = sum(line["duration_s"] for line in read_journal(folder / "m.study" / "journal.jsonl") if line["kind"] == "session")
    monkeypatch.setattr("openinfer.tuner.final.ROUNDS", ROUNDS + 1)
    arguments = {"model": str(folder / "m.onnx"), "trace": str(folder / "t.parquet"), "output": folder / "m.toml"}
    again = tune(**arguments, slo="p50<1ns", budget="9trials", resume=True)
    assert again.record.trust.rounds == ROUNDS and again.record.started_at == done.record.started_at
    assert again.record.duration_s > earlier_s and len(again.record.trials) == 2
    assert again.record.slos[0].status == "not met"


@pytest.mark.parametrize("output", ["m", "file.toml/m.toml", "folder.toml"])
def test_outputs_that_cannot_be_written_are_refused_before_the_study(tmp_path, output):
    (tmp_path / "file.toml").touch()
    (tmp_path / "folder.toml").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StudyError, match="output"):
        tune(workload="hft", output=tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


def test_mistakes_are_named(tmp_path):
    for arguments, words in (
        ({"workload": "hft", "model": "m.onnx"}, "exactly one"),
        ({"workload": "hft", "objective": "mean"}, "percentile"),
        ({"workload": "hft", "slo": "fast"}, "not understood"),
    ):
        with pytest.raises(StudyError, match=words):
            tune(**arguments, output=tmp_path / "x.toml")
