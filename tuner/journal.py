"""The append-only journal of a study: one JSON document a line, synced before the next step starts.

A study killed at any moment keeps every line that was written; a line torn by the kill is cut off when the journal is next opened.
One writer at a time, held by a lock that dies with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from openinfer.errors import StudyError


class Journal:
    """Owns one journal file for writing. `records` holds what it contains; `append` returns once the line is on disk."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise StudyError(f"{str(path)!r} is being written by another study; wait for it to end or choose another --output") from None
        try:
            self.records, whole_bytes = _parse(path)
            if whole_bytes < os.fstat(self._handle).st_size:
                os.ftruncate(self._handle, whole_bytes)
                os.fsync(self._handle)
        except BaseException:
            self.close()
            raise

    def append(self, kind: str, **values: Any) -> dict[str, Any]:
        """Write one record durably."""
        record = {"kind": kind, **values}
        line = memoryview((json.dumps(record, separators=(",", ":")) + "\n").encode())
        while line:
            line = line[os.write(self._handle, line) :]
        os.fsync(self._handle)
        self.records.append(record)
        return record

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind, in order."""
        return [record for record in self.records if record["kind"] == kind]

    def clear(self) -> None:
        """Start over: a new study at the same place."""
        os.ftruncate(self._handle, 0)
        os.fsync(self._handle)
        self.records.clear()

    def close(self) -> None:
        """Release the file and its lock; the second call does nothing."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_journal(path: Path) -> list[Mapping[str, Any]]:
    """The records of a journal that may still be growing, without its lock."""
    if not path.is_file():
        raise StudyError(f"no journal at {str(path)!r}; give the .study folder that `openinfer tune` wrote")
    return list(_parse(path)[0])


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Whole records and the bytes they take. A torn last line is left out; damage before it is an error."""
    data = path.read_bytes()
    records: list[dict[str, Any]] = []
    whole_bytes = 0
    for number, line in _lines(data):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        torn = not line.endswith(b"\n") or (record is None and whole_bytes + len(line) == len(data))
        if torn:
            break
        if not isinstance(record, dict) or "kind" not in record:
            raise StudyError(f"{path}: line {number} is not a journal record; restore the file or start a new study without --resume")
        records.append(record)
        whole_bytes += len(line)
    return records, whole_bytes


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    yield from enumerate(data.splitlines(keepends=True), 1)
