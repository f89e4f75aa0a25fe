"""Default, winner and runner-up: the objective with its interval."""

from __future__ import annotations

from typing import Any

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import COLORS, INK, OTHER, both
from openinfer.reports.labels import arm_label
from openinfer.reports.numerals import time

ROOM = 2.0  # the axis ends at this multiple of the longest bar; an interval that goes on is drawn as an arrow


def arms(record: StudyRecord) -> str:
    """Horizontal bars from zero, intervals as lines."""
    return both("arms", "The objective of each configuration with its interval", record, 0.75 + 0.52 * len(record.arms), _draw, wide=6.2)


def _draw(record: StudyRecord, drawn: Any, axes: Any, narrow: bool) -> None:
    longest = max(arm.objective.estimate for arm in record.arms)
    edge = min(ROOM * longest, 1.05 * max(arm.objective.high for arm in record.arms))
    unit, scale = ("ns", 1.0) if edge < 1e3 else ("µs", 1e3) if edge < 1e6 else ("ms", 1e6)
    names = [arm_label(record, arm.name) for arm in reversed(record.arms)]
    for place, arm in enumerate(reversed(record.arms)):
        level = arm.objective
        axes.barh(place, level.estimate / scale, color=COLORS.get(arm.name, OTHER), height=0.62)
        axes.plot([level.low / scale, min(level.high, edge) / scale], [place, place], color=INK, linewidth=1.6)
        axes.plot(level.low / scale, place, marker="|", color=INK, markersize=9, markeredgewidth=1.6)
        axes.plot(min(level.high, edge) / scale, place, marker=">" if level.high > edge else "|", color=INK, markersize=6, clip_on=False)
    axes.set_yticks(
        range(len(names)), [f"{name}\n{time(arm.objective.estimate)}" for name, arm in zip(names, reversed(record.arms), strict=True)]
    )
    axes.xaxis.get_major_locator().set_params(nbins=5 if narrow else 8)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, edge / scale)
    axes.set_xlabel(f"{record.verdict.objective} latency, {unit}")
