"""Memory, fragmentation and contention of one process over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openinfer.profiles.profile_record import ProfileRecord
from openinfer.reports.charts.figure import COLORS, OTHER, both

MIB = 1 << 20
BLUE, RED = COLORS["default"], COLORS["winner"]
# Panel: its axis label, the scale of its values, and its lines: instrument, name, how it is drawn, what it is called.
PANELS: tuple[tuple[str, float, tuple[tuple[str, str, str, str, str], ...]], ...] = (
    ("RAM, MiB", 1 / MIB, (("memory", "resident", "-", BLUE, "resident"),)),
    (
        "fragmentation, %",
        100,
        (("memory", "internal_fragmentation", "-", BLUE, "internal"), ("memory", "external_fragmentation", ":", RED, "external")),
    ),
    ("no processor, % of time", 100, (("contention", "run queue", "-", BLUE, "run queue"),)),
    ("GIL wait, ms", 1e-6, (("contention", "GIL", "-", BLUE, "wait for the GIL"),)),
)


def timeline(record: ProfileRecord) -> str:
    """One panel for each kind of value that the record holds; empty where it holds none."""
    shown = [panel for panel in PANELS if any(len(record.series(instrument, name)) > 1 for instrument, name, *_ in panel[2])]
    return both("timeline", "Memory and contention over time", record, 0.5 + 1.1 * len(shown), _drawn(shown)) if shown else ""


def _drawn(shown: list[Any]) -> Callable[[Any, Any, Any, bool], None]:
    def draw(record: ProfileRecord, drawn: Any, axes: Any, narrow: bool) -> None:
        axes.remove()
        panels = drawn.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        begin = min(row.at_ns for row in record.rows if row.at_ns >= 0)
        for panel, (label, scale, lines) in zip(panels, shown, strict=True):
            for instrument, name, style, color, text in lines:
                rows = record.series(instrument, name)
                panel.plot(
                    [(row.at_ns - begin) / 1e9 for row in rows],
                    [scale * row.value for row in rows],
                    style,
                    color=color,
                    linewidth=1.4,
                    label=text,
                )
            panel.set_ylabel(label.replace(", ", ",\n"), fontsize=8.5)
            panel.set_ylim(0, max(panel.get_ylim()[1] * 1.05, 1e-3))
            panel.grid(axis="y", color=OTHER, alpha=0.3, linewidth=0.6)
            if len(lines) > 1:
                panel.legend(loc="upper right", fontsize=8, ncols=2)
        panels[-1].set_xlabel("seconds")

    return draw
