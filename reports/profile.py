"""A profile as one self-contained HTML file: no network, no JavaScript, the record embedded. Pure: it measures nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path
from typing import Any

import jinja2
from openinfer.profiles.profile_record import ProfileRecord
from openinfer.reports import numerals
from openinfer.reports.charts.flame import flame
from openinfer.reports.charts.roofline import roofline
from openinfer.reports.charts.stages import stages
from openinfer.reports.charts.timeline import timeline

from openinfer.config import write_atomically

TEMPLATES = Path(__file__).parent / "templates"
STAGES = {
    "corrected": "due time to answer",
    "raw": "begin of the call to answer",
    "queue": "waiting for the engine",
    "batch": "waiting for company",
    "copy": "into and out of the call's arrays",
    "kernel": "compiled code",
    "blocking": "look-ups and other calls that block",
    "lock": "waiting for the lock of the blocking pool",
    "handoff": "from one thread to the other",
    "gil": "waiting for the GIL after the kernel",
}
FILTERS = ("time", "seconds", "size", "percent", "moment", "sentence", "figures")
WIDEST = 12  # stacks in the table


def render(record: ProfileRecord) -> str:
    """The page's text. All of the record's strings are escaped."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        name: getattr(numerals, name) for name in ("time", "seconds", "size", "percent", "moment", "sentence", "figures")
    }
    whole = {**record.header(), "rows": [dataclasses.astuple(row) for row in record.rows]}
    embedded = json.dumps(_finite(whole), allow_nan=False).replace("<", "\\u003c")
    charts = {"stages": stages(record), "timeline": timeline(record), "roofline": roofline(record), "flame": flame(record.stacks)}
    return environment.get_template("profile.html").render(
        record=record,
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        embedded=embedded,
        charts=charts,
        stage_rows=stage_rows(record),
        stage_meaning=STAGES,
        layer_rows=layer_rows(record),
        over_time=_over_time(record),
        locks=_locks(record),
        ceilings=[(row.key, row.value) for row in record.series("ceiling", "bandwidth")],
        peak=record.figure("ceiling", "arithmetic"),
        misaligned=[row.key for row in record.series("layers", "misaligned")],
        strided=[(row.key, row.value) for row in record.series("layers", "strided")],
        simulated=_simulated(record),
        neighbours=[(row.key, row.value) for row in record.series("noise", "other process")],
        noise={name: record.figure("noise", name) for name in ("others", "own", "stolen", "throttled")},
        events=[(row.name, row.value) for row in record.rows if row.instrument == "events"],
        steady=record.figure("steady", "steady"),
        changes=[(row.key, math.exp(row.value)) for row in record.series("steady", "change")],
        stacks=_widest(record),
        samples=sum(record.stacks.values()),
    )


def write(record: ProfileRecord, path: Path) -> None:
    """Write the page, whole or not at all."""
    write_atomically(path, render(record))


def stage_rows(record: ProfileRecord) -> list[list[str]]:
    """Stage, p50, p99, p99.9, largest; a percentile that the run has too few requests for is a dash."""
    found = []
    for stage in STAGES:
        values = {row.key: row.value for row in record.series("latency", stage)}
        if values:
            found.append([stage, *(numerals.time(values[key]) if key in values else "–" for key in ("p50", "p99", "p99.9", "largest"))])
    return found


def layer_rows(record: ProfileRecord) -> list[list[str]]:
    """Layer, time, share, operations per byte, part of the ceiling, what bounds it; the slowest first."""
    rows = sorted(record.series("layers", "time"), key=lambda row: -row.value)
    return [
        [
            row.key,
            numerals.time(row.value),
            numerals.percent(_of(record, "share", row.key)),
            numerals.figures(_of(record, "intensity", row.key)),
            numerals.percent(_of(record, "reached", row.key)),
            _bound(record, row.key),
        ]
        for row in rows
    ]


def _of(record: ProfileRecord, name: str, layer: str) -> float:
    return record.figure("layers", name, layer) or 0.0


def _bound(record: ProfileRecord, layer: str) -> str:
    peak = record.figure("ceiling", "arithmetic")
    least = _of(record, "floor", layer)
    return "arithmetic" if peak and least and _of(record, "flops", layer) / peak >= 0.999 * least else "memory"


def _over_time(record: ProfileRecord) -> list[tuple[str, str, str, str]]:
    """What was sampled: smallest, median, largest."""
    kinds = {"bytes": numerals.size, "share": numerals.percent, "ns": numerals.time}
    names = dict.fromkeys((row.instrument, row.name, row.unit) for row in record.rows if row.at_ns >= 0)
    found = []
    for instrument, name, unit in names:
        values = [row.value for row in record.series(instrument, name)]
        shown = kinds.get(unit, numerals.figures)
        low, middle, high = (shown(value) for value in (min(values), statistics.median(values), max(values)))
        found.append((f"{name.replace('_', ' ')}{', per s' if unit == 'per s' else ''}", low, middle, high))
    return found


def _locks(record: ProfileRecord) -> list[tuple[str, str, str, str]]:
    return [
        (
            row.key,
            numerals.time(row.value),
            f"{record.figure('contention', 'lock contended', row.key) or 0:,.0f}",
            numerals.time(record.figure("contention", "lock longest", row.key) or 0),
        )
        for row in record.series("contention", "lock wait")
    ]


def _simulated(record: ProfileRecord) -> list[tuple[str, float, float, float]]:
    """Layer, accesses, misses of the first level and of the last, per call; those that miss most first."""
    first, last = ({row.key: row.value for row in record.series("cache", name)} for name in ("D1 misses", "last-level misses"))
    rows = [(row.key, row.value, first.get(row.key, 0.0), last.get(row.key, 0.0)) for row in record.series("cache", "accesses")]
    return sorted(rows, key=lambda row: -row[2])


def _widest(record: ProfileRecord) -> list[tuple[str, int]]:
    return sorted(record.stacks.items(), key=lambda item: -item[1])[:WIDEST]


def _finite(value: Any) -> Any:
    """JSON has no infinity: what is unbounded or unknown becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
