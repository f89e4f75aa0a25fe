"""The verdict as a picture: the change with its interval, beside what identical processes differ by."""

from __future__ import annotations

from typing import Any

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import COLORS, INK, OTHER, both
from openinfer.reports.numerals import tick

SMALLEST, LARGEST = 0.05, 20.0  # ratios beyond these are drawn as arrows at the edge
TICKS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 9.0)


def effect(record: StudyRecord) -> str:
    """One line on an axis of changes; empty where there was no candidate to race."""
    return (
        ""
        if record.verdict.ratio is None
        else both("effect", "The change against the default, with its interval", record, 1.15, _draw, wide=6.2)
    )


def _draw(record: StudyRecord, drawn: Any, axes: Any, narrow: bool) -> None:
    ratio = record.verdict.ratio
    assert ratio is not None
    floor = record.trust.noise_floor
    noise = max(1 - floor, SMALLEST), min(1 + floor, LARGEST)
    low, high = max(ratio.low, SMALLEST), min(ratio.high, LARGEST)
    left, right = min(low, noise[0], 0.98), max(high, noise[1], 1.02)
    axes.axvspan(*noise, color=OTHER, alpha=0.25, linewidth=0)
    axes.axvline(1.0, color=INK, linewidth=0.8)
    axes.plot([low, high], [0, 0], color=COLORS["winner"], linewidth=4)
    for bound, cut, marker in ((ratio.low, SMALLEST, "<"), (ratio.high, LARGEST, ">")):
        if not SMALLEST < bound < LARGEST:
            axes.plot(cut, 0, marker=marker, color=COLORS["winner"], markersize=8, clip_on=False)
    axes.plot(min(max(ratio.estimate, SMALLEST), LARGEST), 0, marker="o", color=COLORS["winner"], markersize=9)
    axes.set_yticks([])
    axes.set_ylim(-1, 1)
    axes.spines["left"].set_visible(False)
    if left < 1 / 3 or right > 3.0:
        axes.set_xscale("log")
        axes.set_xlim(left / 1.1, right * 1.1)
        ticks = [at for at in TICKS if left / 1.1 <= at <= right * 1.1]
        shown = [at for at in ticks if not narrow or at in (0.1, 0.5, 1.0, 4.0)]
        axes.set_xticks(shown, ["same" if at == 1 else tick(at) for at in shown])
        axes.minorticks_off()
    else:
        margin = 0.08 * (right - left)
        axes.set_xlim(left - margin, right + margin)
        axes.xaxis.get_major_locator().set_params(nbins=4 if narrow else 8)
        axes.xaxis.set_major_formatter(lambda value, place: "same" if abs(value - 1) < 1e-9 else tick(value))
    gap = "\u00a0" * (2 if narrow else 6)  # spaces that SVG does not fold into one
    axes.set_xlabel(f"← faster{gap}{record.verdict.objective} latency{'' if narrow else ' against the default'}{gap}slower →")
