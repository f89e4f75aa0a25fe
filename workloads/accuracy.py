"""Held-out accuracy as the build scripts state it: a figure, its bootstrap interval, written into workload.toml."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 400

Figure = tuple[float, float, float]


def bootstrap(measure: Callable[[Any], float], units: int, block: int = 1) -> Figure:
    """`measure(indices)` of all `units`, and its 95% percentile interval over resampled blocks of `block` consecutive ones: as many as
    depend on each other. Units beyond the last whole block are left out.
    """
    blocks = np.arange(units // block * block).reshape(-1, block)
    generator = np.random.default_rng(0)
    draws = [measure(blocks[generator.integers(0, len(blocks), len(blocks))].reshape(-1)) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return measure(blocks.reshape(-1)), float(low), float(high)


def record(path: Path, figures: Mapping[str, Figure], further: Mapping[str, Mapping[str, Figure]] | None = None) -> None:
    """Put figures by model into the workload.toml at `path`, where the sections are there already; `further` are further measures of a
    model, by name.
    """
    text = path.read_text(encoding="utf-8")
    for name, (value, low, high) in figures.items():
        line = f"accuracy = {value:.4f}\naccuracy_interval = [{low:.4f}, {high:.4f}]"
        more = (further or {}).get(name, {})
        if more:
            line += "\nfurther = { " + ", ".join(f'"{key}" = [{v:.4f}, {a:.4f}, {b:.4f}]' for key, (v, a, b) in more.items()) + " }"
        section = rf"(\[models\.{name}\]\n(?:(?!\[models).)*?)accuracy = [^\n]*\naccuracy_interval = [^\n]*(?:\nfurther = [^\n]*)?"
        text, found = re.subn(section, lambda match, line=line: match[1] + line, text, flags=re.S)  # type: ignore[misc]  # bound by default
        assert found == 1, name
    path.write_text(text, encoding="utf-8")
