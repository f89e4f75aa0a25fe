"""`openinfer profile` as a user types it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import onnx
import pytest
from models import mlp

from openinfer import profiles

COMMAND = shutil.which("openinfer")
pytestmark = pytest.mark.skipif(COMMAND is None, reason="the openinfer command is not on PATH; pip install '.[test]' in this environment")


def openinfer(*arguments: str, cwd) -> subprocess.CompletedProcess:
    return subprocess.run([str(COMMAND), *arguments], capture_output=True, text=True, timeout=120, cwd=cwd)


def test_a_model_is_profiled_without_a_trace(tmp_path):
    onnx.save(mlp(), tmp_path / "m.onnx")
    done = openinfer("profile", "m.onnx", "--seconds", "1", "--report", "p.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("first finding: ")
    for stage in ("corrected", "raw", "queue", "kernel", "copy"):
        assert any(re.match(rf"{stage} +\d", line) for line in lines), stage
    assert any(line.startswith("Gemm ") for line in lines)
    frame = profiles.load(tmp_path / "p.parquet")
    assert {"latency", "memory", "contention", "layers", "noise"} <= set(frame["instrument"])
    layers = frame[(frame["instrument"] == "layers") & (frame["name"] == "share")]
    assert len(layers) == 4 and layers["value"].sum() == pytest.approx(1)
    page = (tmp_path / "p.html").read_text()
    embedded = json.loads(re.search(r'id="record">(.*?)</script>', page, re.S)[1])
    assert len(embedded["rows"]) == len(frame) and "http" not in re.sub(r"http://www\.w3\.org/\S+", "", page.split('id="record"')[0])


def test_a_workload_is_profiled_and_instruments_can_be_off(tmp_path):
    done = openinfer("profile", "--workload", "hft", "--seconds", "0.5", "--off", "stacks,layers,locks", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {one["name"]: one["on"] for one in found["instruments"]} == {
        "latency": True,
        "memory": True,
        "locks": False,
        "noise": True,
        "events": True,
        "stacks": False,
        "layers": False,
    }
    assert not found["stacks"] and (tmp_path / "hft.profile.html").exists()


def test_requests_through_submit_are_profiled_with_their_waits(tmp_path):
    done = openinfer("profile", "--workload", "recommendation", "--seconds", "1", "--off", "stacks", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    waits = {row["name"] for row in json.loads(done.stdout)["rows"] if row["instrument"] == "latency"}
    assert {"corrected", "raw", "queue", "lock", "handoff", "gil", "kernel", "blocking"} <= waits


def test_mistakes_are_named(tmp_path):
    for arguments, named in ((["profile"], "exactly one"), (["profile", "--workload", "hft", "--off", "lokcs"], "lokcs")):
        done = openinfer(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and named in done.stderr and "Traceback" not in done.stderr
