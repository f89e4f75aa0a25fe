"""Memory, fragmentation and contention of each arm, block by block of the final race."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openinfer.profiles.study_record import StudyRecord
from openinfer.reports.charts.figure import COLORS, OTHER, both
from openinfer.reports.labels import arm_label

MIB = 1 << 20
# Panel: its axis label, the scale of its values, and its lines: the name of the values and how they are drawn.
PANELS: tuple[tuple[str, float, dict[str, str]], ...] = (
    ("RAM, MiB", 1 / MIB, {"resident_bytes": "-"}),
    ("fragmentation, %", 100, {"internal_fragmentation": "-", "external_fragmentation": ":"}),
    ("waiting, % of time", 100, {"waiting": "-"}),
    ("p99 of queue, ms", 1e-6, {"queue_p99_ns": "-"}),
    ("p99 of hand-off, ms", 1e-6, {"handoff_p99_ns": "-"}),
    ("p99 of look-up, ms", 1e-6, {"blocking_p99_ns": "-"}),
    ("batches, % full", 100, {"batch_fill": "-"}),
)


def series(record: StudyRecord) -> str:
    """One panel for each kind of value that the record holds; empty where it holds none."""
    shown = [panel for panel in PANELS if any(name in one.values for one in record.series for name in panel[2])]
    return (
        both("series", "Memory, fragmentation and contention over the race", record, 0.55 + 1.15 * len(shown), _drawn(shown))
        if shown
        else ""
    )


def _drawn(shown: list[tuple[str, float, dict[str, str]]]) -> Callable[[StudyRecord, Any, Any, bool], None]:
    def draw(record: StudyRecord, drawn: Any, axes: Any, narrow: bool) -> None:
        axes.remove()
        panels = drawn.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (label, scale, lines) in zip(panels, shown, strict=True):
            for one in record.series:
                for name, style in lines.items():
                    values = [scale * value for value in one.values.get(name, [])]
                    color, text = COLORS.get(one.arm, OTHER), arm_label(record, one.arm)
                    panel.plot(range(1, len(values) + 1), values, style, color=color, linewidth=1.4, label=text if style == "-" else None)
            panel.set_ylabel(label.replace(", ", ",\n"), fontsize=8.5)
            panel.set_ylim(0, panel.get_ylim()[1] * 1.05)
            panel.grid(axis="y", color=OTHER, alpha=0.3, linewidth=0.6)
            for border in _borders(record):
                panel.axvline(border + 0.5, color=OTHER, alpha=0.4, linewidth=0.6)
        panels[-1].set_xlabel("block; a line marks fresh processes")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper left", ncols=2 if narrow else 3, fontsize=8.5, columnspacing=1.2)

    return draw


def _borders(record: StudyRecord) -> list[int]:
    """Blocks after which the arms got fresh processes."""
    rounds = max((one.rounds for one in record.series), key=len, default=[])
    return [index for index in range(1, len(rounds)) if rounds[index] != rounds[index - 1]]
