"""A study as one self-contained HTML file: no network, no JavaScript, the record embedded. Pure: it measures nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from openinfer.profiles.study_record import Arm, SloCheck, StudyRecord, Trial
from openinfer.reports import numerals
from openinfer.reports.charts.arms import arms
from openinfer.reports.charts.effect import effect
from openinfer.reports.charts.percentiles import percentiles
from openinfer.reports.charts.series import series
from openinfer.reports.charts.trials import trials
from openinfer.reports.labels import arm_label

from openinfer.config import write_atomically

TEMPLATES = Path(__file__).parent / "templates"
FILTERS = (
    "time",
    "seconds",
    "size",
    "whole",
    "percent",
    "change",
    "interval",
    "scientific",
    "moment",
    "sentence",
    "figures",
    "limit",
    "percentile",
    "word",
)


def render(record: StudyRecord) -> str:
    """The report's text. All of the record's strings are escaped."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {name: getattr(numerals, name) for name in FILTERS}
    environment.filters |= {"label": lambda name: arm_label(record, name), "file_name": lambda path: Path(path).name}
    charts = {
        "effect": effect(record),
        "arms": arms(record) if record.arms else "",
        "percentiles": percentiles(record) if record.curves else "",
        "series": series(record),
        "trials": trials(record) if record.trials else "",
    }
    embedded = json.dumps(_finite(dataclasses.asdict(record)), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("report.html").render(
        record=record,
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        embedded=embedded,
        charts=charts,
        promises=_promises(record),
        costs=_costs(record),
        shares=_shares(record),
        seen=_seen(record),
        waiting=statistics.median(waiting) if (waiting := [w for one in record.series for w in one.values.get("waiting", [])]) else None,
        fragmented=any("internal_fragmentation" in one.values for one in record.series),
        candidates=[(trial, _changed(record, trial)) for trial in record.trials],
        adopted=record.verdict.kind == "ADOPT",
    )


def write(record: StudyRecord, path: Path) -> None:
    """Write the report, whole or not at all."""
    write_atomically(path, render(record))


def _promises(record: StudyRecord) -> list[tuple[SloCheck, list[SloCheck]]]:
    """Each promise once, with the checks of every arm."""
    found: dict[tuple[str, str], list[SloCheck]] = {}
    for check in record.slos:
        found.setdefault((check.expression, check.scenario), []).append(check)
    return [(checks[0], checks) for checks in found.values()]


def _costs(record: StudyRecord) -> tuple[Arm, Arm] | None:
    """(default, winner) where both were raced."""
    by_name = {arm.name: arm for arm in record.arms}
    return (by_name["default"], by_name["winner"]) if {"default", "winner"} <= by_name.keys() else None


def _shares(record: StudyRecord) -> dict[str, float]:
    """Each knob's part of the whole gain, on the scale on which steps add up; empty where there is no gain to share."""
    ratios = {step.name: step.ratio.estimate for step in record.steps if step.ratio is not None and step.ratio.estimate > 0}
    whole = sum(math.log(ratio) for ratio in ratios.values())
    verdict = record.verdict.ratio
    if len(ratios) < len(record.steps) or verdict is None or verdict.high >= 1 or whole >= 0:
        return {}
    return {name: math.log(ratio) / whole for name, ratio in ratios.items()}


def _seen(record: StudyRecord) -> list[tuple[str, list[tuple[str, float, float, float]]]]:
    """By arm: each kind of value that was seen, with its smallest, its median and its largest."""
    return [
        (one.arm, [(name, min(values), statistics.median(values), max(values)) for name, values in one.values.items() if values])
        for one in record.series
    ]


def _changed(record: StudyRecord, trial: Trial) -> dict[str, Any]:
    """The knobs in which a candidate differs from the default; all of them where the default was not raced."""
    default: Mapping[str, Any] = next((arm.knobs for arm in record.arms if arm.name == "default"), {})
    return {name: value for name, value in trial.knobs.items() if name not in default or default[name] != value}


def _finite(value: Any) -> Any:
    """JSON has no infinity: what is unbounded or unknown becomes null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
