"""Static offsets for buffers with known lifetimes, and the check that no two live ones overlap.

Greedy best-fit in several orders; the smallest peak wins. The certificate is peak ÷ maximum live bytes (1.0 is optimal).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Lifetime:
    """A buffer of `size_bytes`, live from step `first` to step `last`, both included."""

    name: str
    size_bytes: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are live at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class Layout:
    """Offsets in one arena of `peak_bytes`; `live_bytes` is the lower bound that no plan can beat."""

    offsets: dict[str, int]
    peak_bytes: int
    live_bytes: int

    @property
    def gap(self) -> float:
        """Peak ÷ maximum live bytes."""
        return self.peak_bytes / self.live_bytes if self.live_bytes else 1.0


def plan(buffers: Sequence[Lifetime], alignment: int = 64) -> Layout:
    """A verified layout; sizes are rounded up to `alignment`."""
    rounded = [dataclasses.replace(b, size_bytes=-(-b.size_bytes // alignment) * alignment) for b in buffers]
    orders: list[Callable[[Lifetime], tuple[int, ...]]] = [
        lambda b: (-b.size_bytes, b.first),
        lambda b: (-b.size_bytes * (b.last - b.first + 1), b.first),
        lambda b: (b.first, -b.size_bytes),
        lambda b: (-(b.last - b.first), -b.size_bytes),
    ]
    live = _live_bytes(rounded)
    best: dict[str, int] | None = None
    best_peak = 0
    for order in orders:
        offsets = _place(sorted(rounded, key=order))
        peak = max((offsets[b.name] + b.size_bytes for b in rounded), default=0)
        if best is None or peak < best_peak:
            best, best_peak = offsets, peak
        if best_peak == live:
            break
    layout = Layout(best or {}, best_peak, live)
    verify_layout(rounded, layout)
    return layout


def verify_layout(buffers: Sequence[Lifetime], layout: Layout) -> None:
    """Prove that no two live buffers share a byte and that all lie inside the arena."""
    for index, one in enumerate(buffers):
        start = layout.offsets[one.name]
        assert start >= 0 and start + one.size_bytes <= layout.peak_bytes, f"{one.name} lies outside the arena"
        for other in buffers[:index]:
            apart = start + one.size_bytes <= layout.offsets[other.name] or layout.offsets[other.name] + other.size_bytes <= start
            assert apart or not one.overlaps(other), f"{one.name} and {other.name} overlap"


def _place(ordered: Sequence[Lifetime]) -> dict[str, int]:
    offsets: dict[str, int] = {}
    placed: list[Lifetime] = []
    for buffer in ordered:
        taken = sorted((offsets[p.name], offsets[p.name] + p.size_bytes) for p in placed if p.overlaps(buffer))
        at, fit = 0, None
        for low, high in taken:
            if low - at >= buffer.size_bytes and (fit is None or low - at < fit[1]):
                fit = at, low - at
            at = max(at, high)
        offsets[buffer.name] = at if fit is None else fit[0]
        placed.append(buffer)
    return offsets


def _live_bytes(buffers: Sequence[Lifetime]) -> int:
    change: dict[int, int] = {}
    for buffer in buffers:
        change[buffer.first] = change.get(buffer.first, 0) + buffer.size_bytes
        change[buffer.last + 1] = change.get(buffer.last + 1, 0) - buffer.size_bytes
    live = peak = 0
    for step in sorted(change):
        live += change[step]
        peak = max(peak, live)
    return peak
