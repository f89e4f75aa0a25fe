"""The look of every chart: static SVG that takes its text colour from the page, so that it reads in light and dark.

Each chart is drawn twice, for wide and for narrow pages, because text that shrinks with the picture cannot be read on a telephone. The
page's style shows one of the two.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

INK = "#010203"  # replaced by the page's own colour
# Okabe and Ito's colours, which colour-blind readers tell apart; each has 3:1 against the light and the dark page.
COLORS = {"default": "#0072b2", "winner": "#d55e00", "runner-up": "#009e73"}
OTHER = "#808080"
WIDE, NARROW = 7.4, 3.9  # inches

Draw = Callable[[Any, Any, Any, bool], None]  # of one kind of record


def both(name: str, title: str, record: Any, height: float, draw: Draw, wide: float = WIDE) -> str:
    """The wide and the narrow drawing as HTML. `draw(record, figure, axes, narrow)` fills the axes; `height` and `wide` in inches."""
    parts = []
    for kind, width in (("wide", wide), ("narrow", NARROW)):
        with _figure(width, height) as (drawn, axes):
            draw(record, drawn, axes, kind == "narrow")
            parts.append(f'<div class="{kind}">{_svg(drawn, f"{name}-{kind}", title)}</div>')
    return f'<div class="chart">{"".join(parts)}</div>'


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """(figure, axes) in inches, drawn without a display."""
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "openinfer",
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "legend.frameon": False,
        "lines.solid_capstyle": "butt",
    }
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(drawn)
        yield drawn, drawn.add_subplot()


def _svg(drawn: Any, name: str, title: str) -> str:
    """The figure as an inline SVG element with a title for readers who cannot see it; the same bytes for the same figure."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.S)
    # Identifiers are per document: two figures must not share one.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text).replace("url(#", f"url(#{name}-")
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', text, count=1)
    return re.sub(r"(<svg[^>]*>)", rf"\1<title>{title}</title>", text, count=1)
