"""A whole study on a small model: search, final race, verdict, files; resumed, and refused where it should be."""

from __future__ import annotations

import json

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
from openinfer.errors import ProvenanceError, StudyError


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    onnx.save(mlp(), folder / "m.onnx")
    rng = np.random.default_rng(0)
    requests = rng.standard_normal((2000, 40)).astype(np.float32)
    write(Trace({"x": requests}, np.cumsum(rng.exponential(1e-4, 2000))), folder / "t.parquet")
    seen = []
    done = tune(
        model=str(folder / "m.onnx"),
        trace=str(folder / "t.parquet"),
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
    assert {"search", "final race"} == set(seen)


def test_the_record_can_be_read_again(study):
    done, _, _ = study
    record = StudyRecord.load(done.folder / "study.json")
    assert record.verdict == done.record.verdict and len(record.trials) == 2
    assert next(check.status for check in record.slos) == "met"
    assert record.trust.output_passed and record.trust.output_max_error <= 1e-5
    assert len(done.trials) == 2
    assert [line["kind"] for line in read_journal(done.folder / "journal.jsonl")] == ["study", "trial", "trial", "final"]


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


@pytest.mark.parametrize("text", ["", "60", "0s", "-1s", "forty", "60 hours"])
def test_budgets_that_are_not_understood(text):
    with pytest.raises(StudyError, match="allowed: a time"):
        parse_budget(text)


def test_budgets():
    assert parse_budget("60s")[0] == 60 and parse_budget("2m")[0] == 120 and parse_budget("40trials")[1] == 40


def test_mistakes_are_named(tmp_path):
    for arguments, words in (
        ({"workload": "hft", "model": "m.onnx"}, "exactly one"),
        ({"workload": "hft", "objective": "mean"}, "percentile"),
        ({"workload": "hft", "slo": "fast"}, "not understood"),
    ):
        with pytest.raises(StudyError, match=words):
            tune(**arguments, output=tmp_path / "x.toml")
