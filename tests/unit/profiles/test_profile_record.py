"""The record of a profile: written, read, merged; damaged ones refused by name."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from openinfer.profiles import histogram
from openinfer.profiles.profile_record import HEADER, Finding, Instrument, ProfileRecord, Row, schema

from openinfer import profiles
from openinfer.errors import StudyError


def rng() -> np.random.Generator:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed)


def record(process: str, values: np.ndarray) -> ProfileRecord:
    rows = [Row(process, "memory", "resident", "", 5, 1.5e9, "bytes"), Row(process, "layers", "time", "Gemm <a>", -1, 12.0, "ns")]
    return ProfileRecord(
        "m.onnx",
        "",
        "openinfer profile m.onnx",
        3,
        "2026-01-02T03:04:05+00:00",
        1.5,
        {"system": "x"},
        [Finding("lock", "Threads wait", "10 ms", 0.2 if process == "1" else 0.7)],
        [Instrument("memory", True, "ten looks a second", 0.001)],
        {"kernel": histogram.encode(histogram.histogram(values))},
        {"main;a": 4},
        rows,
    )


def test_written_and_read_and_valid_by_its_own_schema(tmp_path):
    made = record("1", rng().integers(1, 10**9, 1000))
    made.save(tmp_path / "p.parquet")
    assert ProfileRecord.load(tmp_path / "p.parquet") == made
    frame = profiles.load(tmp_path / "p.parquet")
    assert frame["value"].tolist() == [1.5e9, 12.0] and str(frame["at_ns"].dtype) == "int64"
    written = json.loads((tmp_path / "p.schema.json").read_text())
    assert written == schema() and set(written["required"]) == set(frame.attrs["profile"])


def test_processes_merge_without_averaging(tmp_path):
    drawn = rng()
    one, other = drawn.integers(1, 1000, 5000), drawn.integers(10**6, 10**7, 700)
    record("1", one).save(tmp_path / "a.parquet")
    record("2", other).save(tmp_path / "b.parquet")
    merged = ProfileRecord.load(tmp_path)
    found, whole = histogram.decode(merged.histograms["kernel"]), histogram.histogram(np.concatenate([one, other]))
    assert found.get_total_count() == 5700
    assert [histogram.quantile(found, q) for q in (0.5, 0.99)] == [histogram.quantile(whole, q) for q in (0.5, 0.99)]
    assert [row.process for row in merged.rows] == ["1", "1", "2", "2"]
    assert merged.stacks == {"main;a": 8} and [finding.severity for finding in merged.findings] == [0.7, 0.2]


def test_histograms_keep_three_digits():
    values = rng().integers(1, 10**10, 4000)
    made = histogram.histogram(values)
    for q in (0.1, 0.5, 0.9, 0.99):
        exact = np.sort(values)[int(np.ceil(q * len(values))) - 1]
        assert abs(histogram.quantile(made, q) - exact) <= 2e-3 * exact + 1


def test_what_is_no_profile_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(StudyError, match="no profile"):
        ProfileRecord.load(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(StudyError, match="cannot read the profile"):
        ProfileRecord.load(tmp_path / "a.parquet")
    made = record("1", np.array([5]))
    made.save(tmp_path / "b.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "b.parquet")
    header = json.dumps({**made.header(), "schema_version": 99}).encode()
    pyarrow.parquet.write_table(table.replace_schema_metadata({HEADER: header}), tmp_path / "b.parquet")
    with pytest.raises(StudyError, match="schema version"):
        ProfileRecord.load(tmp_path / "b.parquet")
    assert dataclasses.asdict(made)["seed"] == 3
