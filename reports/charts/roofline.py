"""Every layer under the machine's roof: operations per byte against operations per second."""

from __future__ import annotations

from typing import Any

from openinfer.profiles.profile_record import ProfileRecord
from openinfer.reports.charts.figure import COLORS, INK, OTHER, both

NAMED = 4  # layers with their names; the table has all


def roofline(record: ProfileRecord) -> str:
    """Empty where no layer has arithmetic, or no ceiling was measured."""
    if record.figure("ceiling", "arithmetic") is None or not any(row.value > 0 for row in record.series("layers", "flops")):
        return ""
    return both("roofline", "Layers against the machine's ceiling", record, 3.4, _draw)


def _draw(record: ProfileRecord, drawn: Any, axes: Any, narrow: bool) -> None:
    peak = record.figure("ceiling", "arithmetic") or 1.0
    points = []
    for row in record.series("layers", "intensity"):
        time, work = record.figure("layers", "time", row.key) or 0.0, record.figure("layers", "flops", row.key) or 0.0
        if time > 0 and work > 0:
            points.append((row.value, work / time, record.figure("layers", "share", row.key) or 0.0, row.key))
    low, high = min(0.05, *(p[0] for p in points)) / 2, max(100.0, *(p[0] for p in points)) * 2
    rates = record.series("ceiling", "bandwidth")
    for index, row in enumerate(sorted(rates, key=lambda row: float(row.key))):
        xs = [low, peak / row.value, high]
        style = ("-", "--", "-.", ":")[index % 4]
        name = ("L1", "L2", "L3", "memory")[index] if len(rates) == 4 else f"{float(row.key) / 1024:.0f} KiB"
        axes.plot(xs, [min(peak, x * row.value) for x in xs], style, color=INK, linewidth=0.9, label=f"{name}, {row.value:.0f} GB/s")
    for x, y, share, _ in points:
        axes.scatter([x], [y], s=20 + 400 * share, color=COLORS["winner"], alpha=0.75, edgecolor=INK, linewidth=0.5)
    for x, y, _, name in sorted(points, key=lambda point: -point[2])[:NAMED]:
        axes.annotate(name[: 16 if narrow else 28], (x, y), textcoords="offset points", xytext=(8, -10), fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min(p[1] for p in points) / 3, peak * 2)
    axes.set_xlabel("operations per byte")
    axes.set_ylabel("GFLOP/s")
    axes.grid(color=OTHER, alpha=0.3, linewidth=0.6)
    drawn.legend(loc="outside upper left", ncols=2 if narrow else 4, fontsize=8, columnspacing=1.2)
