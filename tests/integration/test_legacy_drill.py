"""The legacy drill of benchmarks/legacy.py, drawn anew: every case ends right or refused by name, and the trap is one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

DRILL = Path(__file__).parents[2] / "benchmarks" / "legacy.py"
CASES = 22


@pytest.fixture(scope="module")
def legacy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("legacy_drill", DRILL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_case_is_right_or_refused_by_name(legacy):
    seed = int(np.random.SeedSequence().entropy) % 2**32
    print(f"seed = {seed}")
    cases, trap = legacy.drill(seed)
    assert [case for case in cases if not case.passed] == []
    assert len(cases) == CASES
    assert trap.float64 - trap.float32 >= 0.15
    assert trap.float64 > 0.9 and abs(trap.calibrated - trap.float64) <= 0.001
    assert trap.kept == ("centred",)


def test_the_drill_can_fail(legacy):
    assert not legacy._near("", np.ones(3), np.ones(3) * 1.1).passed
    assert not legacy._equal("", np.float32([0.0]), np.float32([-0.0])).passed
    assert not legacy._refused("", legacy.PrecisionError, "", lambda: None).passed
    assert not legacy._refused("", legacy.PrecisionError, "", lambda: legacy.openinfer.load(b"")).passed


def test_check_prints_the_versions(legacy, tmp_path):
    onnx.save(legacy.dense(np.random.default_rng(), np.float32), tmp_path / "m.onnx")
    command = [str(Path(sys.executable).parent / "openinfer"), "check", "m.onnx"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "IR 8; opset ai.onnx 13; made by drill" in shown
    told = json.loads(subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout)
    assert told["versions"] == {"ir": 8, "opsets": {"ai.onnx": 13}, "producer": "drill"}
