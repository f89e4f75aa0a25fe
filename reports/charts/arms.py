"""Default, winner and runner-up: the objective with its interval."""

from __future__ import annotations

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import COLORS, INK, OTHER, figure, microseconds, svg


def arms(record: StudyRecord) -> str:
    """Horizontal bars, intervals as whiskers."""
    with figure(7.2, 0.7 + 0.5 * len(record.arms)) as (drawn, axes):
        for place, arm in enumerate(reversed(record.arms)):
            low, high = max(0.0, arm.objective.low), min(arm.objective.high, arm.objective.estimate * 5)
            axes.barh(place, arm.objective.estimate / 1e3, color=COLORS.get(arm.name, OTHER), height=0.6)
            axes.plot([low / 1e3, high / 1e3], [place, place], color=INK, linewidth=1.5)
            axes.annotate(f"  {microseconds(arm.objective.estimate)}", (high / 1e3, place), va="center")
        axes.set_yticks(range(len(record.arms)), [arm.name for arm in reversed(record.arms)])
        axes.set_xlabel(f"{record.verdict.objective} of the corrected latency, µs (bars: estimate, lines: 99% interval)")
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        return svg(drawn, "The objective of each arm with its interval")
