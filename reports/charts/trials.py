"""The search: each candidate's ratio to the default, in the order in which it was measured."""

from __future__ import annotations

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import INK, OTHER, figure, svg


def trials(record: StudyRecord) -> str:
    """Points with intervals; below 1 is faster than the default. Failed candidates are crosses at 1."""
    with figure(7.2, 3.0) as (drawn, axes):
        axes.axhline(1.0, color=INK, linewidth=0.8)
        for trial in record.trials:
            if trial.ratio is None:
                axes.plot(trial.number, 1.0, marker="x", color="#d55e00")
                continue
            axes.plot([trial.number] * 2, [max(trial.ratio.low, 0.05), min(trial.ratio.high, 20)], color=OTHER, linewidth=1)
            axes.plot(trial.number, trial.ratio.estimate, marker="o", markersize=5, color="#0072b2")
        axes.set_yscale("log")
        axes.set_xlabel("candidate")
        axes.set_ylabel("ratio to the default")
        axes.xaxis.get_major_locator().set_params(integer=True)
        return svg(drawn, "Each candidate of the search")
