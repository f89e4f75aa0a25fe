"""A study as one self-contained HTML file: no network, no JavaScript, the record embedded. Pure: it measures nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jinja2
from openinfer.profiles.study_record import Interval, StudyRecord
from openinfer.reports.charts.arms import arms
from openinfer.reports.charts.figure import microseconds
from openinfer.reports.charts.percentiles import percentiles
from openinfer.reports.charts.trials import trials

from openinfer.config import write_atomically

TEMPLATES = Path(__file__).parent / "templates"


def render(record: StudyRecord) -> str:
    """The report's text. All of the record's strings are escaped."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"time": microseconds, "percent": _percent, "change": _change, "interval": _interval}
    charts = {
        "arms": arms(record) if record.arms else "",
        "percentiles": percentiles(record) if record.curves else "",
        "trials": trials(record) if record.trials else "",
    }
    embedded = json.dumps(dataclasses.asdict(record)).replace("<", "\\u003c")
    return environment.get_template("report.html").render(
        record=record,
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        embedded=embedded,
        charts=charts,
        by_name={arm.name: arm for arm in record.arms},
    )


def write(record: StudyRecord, path: Path) -> None:
    """Write the report, whole or not at all."""
    write_atomically(path, render(record))


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _change(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.3g}%"


def _interval(value: Interval | None) -> Any:
    return "not measured" if value is None else f"{_change(value.estimate)} ({_change(value.low)} to {_change(value.high)})"
