"""Latency by percentile, corrected and raw, on the axis of HDR plots: each nine takes the same room."""

from __future__ import annotations

from typing import Any

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import COLORS, INK, OTHER, both
from openinfer.reports.labels import arm_label
from openinfer.reports.numerals import limit, percentile

NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def percentiles(record: StudyRecord) -> str:
    """Solid: from the intended arrival. Dashed: from the start of the call."""
    return both("percentiles", "Latency by percentile", record, 3.5, _draw)


def _draw(record: StudyRecord, drawn: Any, axes: Any, narrow: bool) -> None:
    for curve in record.curves:
        nines = [1 / (1 - q) for q in curve.quantiles]
        color, label = COLORS.get(curve.arm, OTHER), arm_label(record, curve.arm)
        axes.plot(nines, curve.corrected_ns, color=color, marker="o", markersize=4, linewidth=1.6, label=f"{label}, corrected")
        axes.plot(nines, curve.raw_ns, color=color, marker="s", markersize=3, linewidth=1.2, linestyle=(0, (4, 2)), label=f"{label}, raw")
    top = max((value for curve in record.curves for value in curve.corrected_ns), default=1)
    for edge in sorted({check.limit_ns for check in record.slos}):
        if edge < 30 * top:  # a promise far above every measurement would squeeze the curves
            axes.axhline(edge, color=INK, linewidth=0.8, linestyle=":")
            axes.annotate(f"limit {limit(edge)}", (0.995, edge), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axes.set_xscale("log")
    axes.set_yscale("log")
    ends = [1 / (1 - q) for curve in record.curves for q in curve.quantiles]
    ticks = [q for q in NINES if min(ends) <= 1 / (1 - q) * 1.001 and 1 / (1 - q) <= max(ends) * 1.001]
    axes.set_xticks([1 / (1 - q) for q in ticks], [f"p{percentile(q)}" for q in ticks])
    axes.xaxis.set_minor_locator(_nothing())
    axes.yaxis.set_major_formatter(lambda value, place: limit(value))
    axes.yaxis.set_minor_locator(_nothing())
    axes.grid(axis="y", color=OTHER, alpha=0.3, linewidth=0.6)
    axes.set_ylabel("latency")
    handles, _ = axes.get_legend_handles_labels()
    if narrow:  # a column of the corrected curves, a column of the raw ones; otherwise a column for each arm
        handles = [*handles[::2], *handles[1::2]]
    columns = 2 if narrow else len(record.curves)
    drawn.legend(handles=handles, loc="outside upper left", ncols=columns, fontsize=8.5, columnspacing=1.2, handlelength=2.4)


def _nothing() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
