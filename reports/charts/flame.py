"""A flame graph as static SVG: width is time, the outermost frame below, the layers of the model on top."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Mapping

HEIGHT = 17
LEAST = 0.002  # of all samples: narrower frames are left out, the table has the widest stacks
CHARACTER = 6.1  # pixels of one, at this size
# Light fills under dark text read in both schemes: Python, native code, the model's layers.
FILLS = {"python": "#f5c26b", "native": "#9ecae1", "model": "#7fd1ae"}
MODEL = "compiled model"


@dataclasses.dataclass
class _Frame:
    name: str
    kind: str
    count: int = 0
    children: dict[str, _Frame] = dataclasses.field(default_factory=dict)


def flame(stacks: Mapping[str, int]) -> str:
    """A wide and a narrow drawing; empty where there are no samples."""
    if not stacks:
        return ""
    root = _tree(stacks)
    parts = [f'<div class="{kind}">{_svg(root, width)}</div>' for kind, width in (("wide", 720), ("narrow", 380))]
    return f'<div class="chart">{"".join(parts)}</div>'


def _tree(stacks: Mapping[str, int]) -> _Frame:
    root = _Frame("all samples", "python")
    for stack, count in stacks.items():
        root.count += count
        at, inside = root, False
        for name in stack.split(";"):
            inside = inside or name == MODEL
            kind = "model" if inside else "python" if re.search(r"\.pyx?:\d+\)|\.py\b", name) else "native"
            at = at.children.setdefault(name, _Frame(name, kind))
            at.count += count
    return root


def _svg(root: _Frame, width: int) -> str:
    boxes: list[str] = []
    levels = _depth(root, root.count)

    def draw(frame: _Frame, left: float, level: int) -> None:
        wide = width * frame.count / root.count
        top = (levels - 1 - level) * HEIGHT
        share = f"{frame.count / root.count:.1%}"
        room = int((wide - 6) / CHARACTER)
        text = frame.name if len(frame.name) <= room else f"{frame.name[: room - 1]}…" if room > 3 else ""
        boxes.append(
            f'<g><title>{html.escape(frame.name)}: {share}</title><rect x="{left:.1f}" y="{top}" width="{max(0.5, wide - 0.5):.1f}" '
            f'height="{HEIGHT - 1}" rx="1.5" fill="{FILLS[frame.kind]}"/>'
            + (f'<text x="{left + 3:.1f}" y="{top + 12}" font-size="10.5" fill="#16191d">{html.escape(text)}</text>' if text else "")
            + "</g>"
        )
        for child in sorted(frame.children.values(), key=lambda child: -child.count):
            if child.count >= LEAST * root.count:
                draw(child, left, level + 1)
                left += width * child.count / root.count

    draw(root, 0.0, 0)
    return f'<svg viewBox="0 0 {width} {levels * HEIGHT}" role="img"><title>Flame graph</title>{"".join(boxes)}</svg>'


def _depth(frame: _Frame, whole: int) -> int:
    return 1 + max((_depth(child, whole) for child in frame.children.values() if child.count >= LEAST * whole), default=0)
