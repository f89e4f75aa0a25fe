"""Latency of each stage by percentile, on the axis of HDR plots: each nine takes the same room."""

from __future__ import annotations

from typing import Any

from openinfer.profiles.profile_record import ProfileRecord
from openinfer.reports.charts.figure import COLORS, INK, OTHER, both
from openinfer.reports.numerals import limit

STYLES = {
    "corrected": (COLORS["default"], "-", "o"),
    "raw": (COLORS["default"], "--", "s"),
    "queue": (COLORS["winner"], "-", "^"),
    "batch": (COLORS["winner"], ":", "v"),
    "copy": (COLORS["runner-up"], "--", "D"),
    "kernel": (COLORS["runner-up"], "-", "x"),
}


def stages(record: ProfileRecord) -> str:
    """Empty where no latency was recorded."""
    return both("stages", "Latency by stage and percentile", record, 3.4, _draw) if record.histograms else ""


def _draw(record: ProfileRecord, drawn: Any, axes: Any, narrow: bool) -> None:
    ticks: dict[float, str] = {}
    for stage, (color, style, marker) in STYLES.items():
        rows = [row for row in record.series("latency", stage) if row.key.startswith("p")]
        shown = [(1 / (1 - float(row.key[1:]) / 100), row.value) for row in rows if row.value > 1]
        ticks |= {1 / (1 - float(row.key[1:]) / 100): row.key for row in rows}
        if shown:
            axes.plot(*zip(*shown, strict=True), style, color=color, marker=marker, markersize=4, linewidth=1.4, label=stage)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, place: limit(value))
    axes.grid(axis="y", color=OTHER, alpha=0.3, linewidth=0.6)
    axes.set_ylabel("latency", color=INK)
    drawn.legend(loc="outside upper left", ncols=3 if narrow else 6, fontsize=8.5, columnspacing=1.2)
