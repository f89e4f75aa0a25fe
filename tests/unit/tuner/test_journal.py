"""The journal keeps whole records through torn writes, and has one writer."""

from __future__ import annotations

from pathlib import Path

import pytest
from openinfer.tuner.journal import Journal, read_journal

from openinfer.errors import StudyError


def test_records_survive(tmp_path: Path) -> None:
    path = tmp_path / "a.study" / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("header", seed=1)
        journal.append("trial", number=0, value=0.5)
    with Journal(path) as journal:
        assert [record["kind"] for record in journal.records] == ["header", "trial"]
        assert journal.of("trial") == [{"kind": "trial", "number": 0, "value": 0.5}]


def test_every_cut_of_the_last_record_is_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("header", seed=1)
        first = path.stat().st_size
        journal.append("trial", number=0)
    whole = path.read_bytes()
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        with Journal(path) as journal:
            assert len(journal.records) == 1
            journal.append("trial", number=7)
        assert [record.get("number") for record in read_journal(path)] == [None, 7]


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"kind":"header"}\n\x00\x00\n{"kind":"trial"}\n')
    with pytest.raises(StudyError, match="line 2"):
        Journal(path)
    with pytest.raises(StudyError, match="line 2"):
        Journal(path)


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("header")
        with pytest.raises(StudyError, match="another study"):
            Journal(path)
    Journal(path).close()


def test_clear_starts_over_and_a_missing_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("header")
        journal.clear()
        journal.append("header", seed=2)
    assert read_journal(path) == [{"kind": "header", "seed": 2}]
    with pytest.raises(StudyError, match="no journal"):
        read_journal(tmp_path / "absent")
