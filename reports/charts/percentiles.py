"""Latency by percentile, corrected and raw, on the axis of HDR plots: each nine takes the same room."""

from __future__ import annotations

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import COLORS, OTHER, figure, svg


def percentiles(record: StudyRecord) -> str:
    """Solid: from the intended arrival. Dashed: from the start of the call."""
    with figure(7.2, 3.4) as (drawn, axes):
        for curve in record.curves:
            nines = [1 / (1 - q) for q in curve.quantiles]
            color = COLORS.get(curve.arm, OTHER)
            axes.plot(
                nines, [value / 1e3 for value in curve.corrected_ns], color=color, marker="o", markersize=4, label=f"{curve.arm}, corrected"
            )
            axes.plot(
                nines,
                [value / 1e3 for value in curve.raw_ns],
                color=color,
                marker="s",
                markersize=3,
                linestyle="--",
                label=f"{curve.arm}, raw",
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({q for curve in record.curves for q in curve.quantiles})
        axes.set_xticks([1 / (1 - q) for q in ticks], [f"p{100 * q:g}" for q in ticks])
        axes.minorticks_off()
        axes.set_ylabel("latency, µs")
        axes.legend(frameon=False)
        return svg(drawn, "Latency by percentile")
