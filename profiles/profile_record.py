"""The record of a profile: one tidy table of all instruments as parquet, its header as JSON in the same file, the schema beside it.

Percentiles are never stored to be averaged: latencies are kept as HDR histograms, which merge exactly across processes.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openinfer.config import write_atomically
from openinfer.errors import StudyError

SCHEMA_VERSION = 1
HEADER = b"openinfer.profile"
COLUMNS = {
    "process": "string",
    "instrument": "string",
    "name": "string",
    "key": "string",
    "at_ns": "int64",
    "value": "float64",
    "unit": "string",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure: which instrument of which process saw it, what it is, of what (`key`: a layer, a lock, a process), and when (-1: over the
    whole run).
    """

    process: str
    instrument: str
    name: str
    key: str
    at_ns: int
    value: float
    unit: str


@dataclasses.dataclass(frozen=True)
class Finding:
    """A cause with its evidence. `kind` is one of overload, lock, leak, layout, neighbour, hot layer, unsteady; `severity` the share of the
    time, of the memory or of the requests, that it takes.
    """

    kind: str
    sentence: str
    evidence: str
    severity: float


@dataclasses.dataclass(frozen=True)
class Instrument:
    """What one instrument did: whether it was on, why not, and the share of the run's time that it took itself, as measured meanwhile."""

    name: str
    on: bool
    note: str
    share: float | None = None


@dataclasses.dataclass(frozen=True)
class ProfileRecord:
    """All that a report needs. `histograms`: stage to encoded HDR histogram; `stacks`: frames joined by ";" to samples."""

    model: str
    workload: str
    command: str
    seed: int
    started_at: str
    duration_s: float
    environment: dict[str, str]
    findings: list[Finding]
    instruments: list[Instrument]
    histograms: dict[str, str]
    stacks: dict[str, int]
    rows: list[Row]
    schema_version: int = SCHEMA_VERSION

    def header(self) -> dict[str, Any]:
        """Everything but the rows."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self) if field.name != "rows"}

    def series(self, instrument: str, name: str, key: str | None = None) -> list[Row]:
        """The rows of one figure, in the order in which they were written."""
        return [row for row in self.rows if row.instrument == instrument and row.name == name and key in (None, row.key)]

    def figure(self, instrument: str, name: str, key: str = "") -> float | None:
        """The last value of one figure; `None` where the instrument did not write it."""
        found = [row.value for row in self.rows if (row.instrument, row.name, row.key) == (instrument, name, key)]
        return found[-1] if found else None

    def frame(self) -> Any:
        """The rows as a pandas frame, the header in `attrs`."""
        import pandas

        frame = pandas.DataFrame([dataclasses.astuple(row) for row in self.rows], columns=list(COLUMNS)).astype(
            {name: kind for name, kind in COLUMNS.items() if kind != "string"}
        )
        frame.attrs["profile"] = self.header()
        return frame

    def save(self, path: Path) -> None:
        """Write `path` (parquet) and its JSON schema beside it, each whole or not at all."""
        import pyarrow
        import pyarrow.parquet

        columns = zip(*(dataclasses.astuple(row) for row in self.rows), strict=True) if self.rows else [[] for _ in COLUMNS]
        kinds = {"string": pyarrow.string(), "int64": pyarrow.int64(), "float64": pyarrow.float64()}
        arrays = [pyarrow.array(list(column), kinds[kind]) for column, kind in zip(columns, COLUMNS.values(), strict=True)]
        table = pyarrow.table(dict(zip(COLUMNS, arrays, strict=True)))
        table = table.replace_schema_metadata({HEADER: json.dumps(self.header()).encode()})
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer)
        write_atomically(path, buffer.getvalue())
        write_atomically(path.with_suffix(".schema.json"), json.dumps(schema(), indent=1))

    @classmethod
    def load(cls, path: Path) -> ProfileRecord:
        """Read a profile, or all profiles of a folder as one; `StudyError` where it is missing, damaged or of another schema."""
        if path.is_dir():
            parts = [cls.load(one) for one in sorted(path.glob("*.parquet"))]
            if not parts:
                raise StudyError(f"{path}: found no profile; allowed: a folder of .parquet files that `openinfer profile` wrote")
            return merged(parts)
        import pyarrow
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
            values = json.loads((table.schema.metadata or {})[HEADER])
            found = values.get("schema_version")
        except (OSError, ValueError, KeyError, AttributeError, pyarrow.ArrowException) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
            raise StudyError(
                f"cannot read the profile {str(path)!r}: {reason}; give a .parquet file that `openinfer profile` wrote"
            ) from None
        if found != SCHEMA_VERSION:
            raise StudyError(f"{path}: {found=}, allowed: schema version {SCHEMA_VERSION}; profile again with this version")
        try:
            values["findings"] = [Finding(**one) for one in values["findings"]]
            values["instruments"] = [Instrument(**one) for one in values["instruments"]]
            rows = [Row(*row) for row in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)]
            return cls(**values, rows=rows)
        except (TypeError, KeyError) as error:
            raise StudyError(f"{path}: damaged record: {error}; profile again") from None


def merged(parts: Sequence[ProfileRecord]) -> ProfileRecord:
    """Several processes' records as one: rows and findings joined, histograms added, stacks counted together."""
    from openinfer.profiles.histogram import add_encoded

    histograms: dict[str, str] = {}
    stacks: dict[str, int] = {}
    for part in parts:
        for name, encoded in part.histograms.items():
            histograms[name] = add_encoded(histograms[name], encoded) if name in histograms else encoded
        for stack, count in part.stacks.items():
            stacks[stack] = stacks.get(stack, 0) + count
    findings = sorted((finding for part in parts for finding in part.findings), key=lambda finding: -finding.severity)
    return dataclasses.replace(
        parts[0],
        duration_s=max(part.duration_s for part in parts),
        findings=list(dict.fromkeys(findings)),
        histograms=histograms,
        stacks=stacks,
        rows=[row for part in parts for row in part.rows],
    )


def schema() -> dict[str, Any]:
    """JSON schema of the header and of the table's columns."""
    text, number, count = {"type": "string"}, {"type": "number"}, {"type": "integer"}

    def table(properties: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False}

    finding = table({"kind": text, "sentence": text, "evidence": text, "severity": number})
    instrument = table({"name": text, "on": {"type": "boolean"}, "note": text, "share": {"type": ["number", "null"]}})
    header = {
        "model": text,
        "workload": text,
        "command": text,
        "seed": count,
        "started_at": text,
        "duration_s": number,
        "environment": {"type": "object", "additionalProperties": text},
        "findings": {"type": "array", "items": finding},
        "instruments": {"type": "array", "items": instrument},
        "histograms": {"type": "object", "additionalProperties": text},
        "stacks": {"type": "object", "additionalProperties": count},
        "schema_version": {"const": SCHEMA_VERSION},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "OpenInfer profile",
        "description": f"The value of the key {HEADER.decode()!r} in the parquet file's metadata; `x-columns` are its table's columns.",
        **table(header),
        "x-columns": COLUMNS,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
