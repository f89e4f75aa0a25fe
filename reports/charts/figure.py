"""The look of every chart: static SVG that takes its text colour from the page, so that it reads in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

INK = "#010203"  # replaced by the page's own colour
COLORS = {"default": "#0072b2", "winner": "#d55e00", "runner-up": "#009e73"}  # Okabe and Ito: told apart by colour-blind readers
OTHER = "#999999"


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """(figure, axes) in inches, drawn without a display."""
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "openinfer",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(drawn)
        yield drawn, drawn.add_subplot()


def svg(drawn: Any, title: str) -> str:
    """The figure as an inline SVG element with a title for readers who cannot see it; the same bytes for the same figure."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', text, count=1)
    return re.sub(r"(<svg[^>]*>)", rf"\1<title>{title}</title>", text, count=1)


def microseconds(nanoseconds: float) -> str:
    """A time with three figures and its unit."""
    for limit, unit, scale in ((1e3, "ns", 1.0), (1e6, "µs", 1e3), (1e9, "ms", 1e6)):
        if abs(nanoseconds) < limit:
            return f"{nanoseconds / scale:.3g} {unit}"
    return f"{nanoseconds / 1e9:.3g} s"
