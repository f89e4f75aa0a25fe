"""The search over time: when each candidate ran, and its ratio to the default."""

from __future__ import annotations

import itertools
import math
from typing import Any

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import COLORS, INK, OTHER, both
from openinfer.reports.numerals import tick

TICKS = (0.5, 2.0, 0.1, 9.0, 0.25, 4.0, 0.02, 0.8, 1.2, 0.9, 1.1, 0.95, 1.05)
SMALLEST, LARGEST = 0.02, 50.0  # the axis goes no further; intervals are cut there


def trials(record: StudyRecord) -> str:
    """A dot per candidate with its interval, at the end of its run; failed ones are crosses on the upper edge."""
    return both("trials", "Each candidate of the search", record, 3.0, _draw)


def _draw(record: StudyRecord, drawn: Any, axes: Any, narrow: bool) -> None:
    measured = [(t.started_s + t.duration_s, t.ratio) for t in sorted(record.trials, key=lambda t: t.started_s) if t.ratio is not None]
    failed = [t.started_s + t.duration_s for t in record.trials if t.ratio is None]
    for end, ratio in measured:
        axes.plot([end, end], [max(ratio.low, SMALLEST), min(ratio.high, LARGEST)], color=OTHER, linewidth=1.2)
    if measured:
        ends, estimates = zip(*((end, ratio.estimate) for end, ratio in measured), strict=True)
        best = list(itertools.accumulate(estimates, min, initial=1.0))[1:]  # the default is there from the start
        axes.step(ends, best, where="post", color=COLORS["winner"], linewidth=1.6, label="best so far")
        axes.plot(ends, estimates, marker="o", markersize=5, linestyle="", color=COLORS["default"], label="candidate, 90% interval")
    if failed:
        axes.plot(
            failed,
            [1.02] * len(failed),
            marker="x",
            linestyle="",
            color=INK,
            transform=axes.get_xaxis_transform(),
            clip_on=False,
            label="failed",
        )
    axes.axhline(1.0, color=INK, linewidth=0.8)
    axes.set_yscale("log")
    reached = [1.0, *(min(max(v, SMALLEST), LARGEST) for _, ratio in measured for v in (ratio.low, ratio.high))]
    axes.set_ylim(min(0.8, min(reached) / 1.1), max(1.25, max(reached) * 1.1))
    bottom, top = axes.get_ylim()
    apart = math.log(top / bottom) / 9  # labels closer than this would touch
    ticks = [1.0]
    for at in TICKS:
        if bottom <= at <= top and all(abs(math.log(at / other)) > apart for other in ticks):
            ticks.append(at)
    axes.set_yticks(ticks, ["default" if at == 1 else tick(at) for at in ticks])
    axes.yaxis.minorticks_off()
    axes.set_xlim(left=0)
    axes.set_xlabel("time since the study began, s")
    axes.set_ylabel("change against the default")
    drawn.legend(loc="outside upper left", ncols=2 if narrow else 3, fontsize=8.5)
