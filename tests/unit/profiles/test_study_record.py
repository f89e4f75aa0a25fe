"""The study record survives JSON, and refuses what is not one."""

import dataclasses
from pathlib import Path

import pytest
from openinfer.profiles.study_record import (
    SCHEMA_VERSION,
    Arm,
    Curve,
    Interval,
    KnobStep,
    SandboxPrice,
    Series,
    SloCheck,
    StudyRecord,
    Trial,
    Trust,
    Verdict,
)

from openinfer.errors import StudyError

INTERVAL = Interval(0.8, 0.7, 0.9)
RECORD = StudyRecord(
    schema_version=SCHEMA_VERSION,
    workload="hft",
    model="tick_mlp",
    model_sha256="00",
    command="openinfer tune",
    seed=1,
    started_at="",
    duration_s=1.0,
    verdict=Verdict("ADOPT", "s", "p99", "ns", INTERVAL, 0.99),
    slos=[SloCheck("p99.9<1ms", "winner", "burst", 0.999, 1_000_000, "met", 5000, 0, 10, 20, 5000)],
    trust=Trust(0.01, 6, True, "", 0.02, 10, 20, 0.0, 0, 0.0, 1e-5, True, 100),
    arms=[Arm("default", {"engine.threads": 1}, INTERVAL, INTERVAL, INTERVAL, INTERVAL, 1, 0.1, 0.0)],
    steps=[KnobStep("engine.threads", 1, 2, None, "m")],
    trials=[Trial(0, "complete", {}, 1.0, INTERVAL, 0.0, 1.0, "")],
    curves=[Curve("default", "burst", [0.5], [10], [9], 100)],
    series=[Series("default", [0, 1], {"waiting": [0.0, 0.1]})],
    accuracy={},
    environment={},
    config_path="tuned/hft.toml",
)


def test_the_price_of_a_sandbox_survives(tmp_path):
    boxed = dataclasses.replace(RECORD, sandbox=SandboxPrice("strict", "default", RECORD.arms[0], INTERVAL, INTERVAL))
    boxed.save(tmp_path / "study.json")
    assert StudyRecord.load(tmp_path / "study.json") == boxed


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    RECORD.save(path)
    assert StudyRecord.load(path) == RECORD


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 99}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(StudyError):
        StudyRecord.load(path)
