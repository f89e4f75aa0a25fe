"""Static offsets for buffers with known lifetimes, and the check that no two live ones overlap.

Greedy placement in several orders comes first; where its smallest peak lies above the maximum of live bytes, a search with a fixed effort
tries to lower it. The certificate is peak ÷ maximum live bytes (1.0 is optimal).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from openinfer.memory import greedy
from openinfer.memory.search import Effort, search
from openinfer.memory.sections import Sections

EFFORT = 1_000_000
TARGETS = (1.25, 1.2, 1.15, 1.1, 1.05, 1.02, 1.0)  # peaks to search for, as multiples of the live bytes
FIRST_SHARE, GROWTH = 10, 3  # each search of the first round may look at 10 n² buffers; of the next, at three times as many


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


def plan(buffers: Sequence[Lifetime], alignment: int = 64, effort: int = EFFORT) -> Layout:
    """A verified layout; sizes are rounded up to `alignment`.

    `effort` bounds the search, in buffers looked at (a million take about a tenth of a second). It is no clock: equal buffers get equal
    offsets on every machine.
    """
    rounded = [dataclasses.replace(b, size_bytes=-(-b.size_bytes // alignment) * alignment) for b in buffers]
    sections = Sections([(b.first, b.last, b.size_bytes) for b in rounded])
    live = sections.live_bytes
    best: list[int] = []
    peak = -1
    for offsets in greedy.placements(sections):
        found = sections.peak(offsets)
        if peak < 0 or found < peak:
            best, peak = offsets, found
        if peak == live:
            break
    if peak > live:
        best, peak = _improve(sections, best, peak, effort)
    layout = Layout({b.name: offset for b, offset in zip(rounded, best, strict=True)}, peak, live)
    verify_layout(rounded, layout)
    return layout


def verify_layout(buffers: Sequence[Lifetime], layout: Layout) -> None:
    """Prove that no two live buffers share a byte and that all lie inside the arena."""
    sections = Sections([(b.first, b.last, b.size_bytes) for b in buffers])
    for buffer in buffers:
        start = layout.offsets[buffer.name]
        assert start >= 0 and start + buffer.size_bytes <= layout.peak_bytes, f"{buffer.name} lies outside the arena"
    for live in sections.members:
        end, below = 0, ""
        for start, size, name in sorted((layout.offsets[buffers[b].name], buffers[b].size_bytes, buffers[b].name) for b in live):
            assert start >= end or not size, f"{name} and {below} overlap"
            end, below = max(end, start + size), name


def _improve(sections: Sections, offsets: list[int], peak: int, effort: int) -> tuple[list[int], int]:
    """Offsets with a lower peak where the search finds any: high targets first, several orders, ever more effort."""
    live, work = sections.live_bytes, Effort(effort)
    ranks = _ranks(sections)
    groups = [group for group in sections.components() if max(offsets[b] + sections.sizes[b] for b in group) > live]
    share = FIRST_SHARE
    while work.left > 0 and peak > live:
        stuck = False  # a lower target is left for the next round, except the lowest: that one is sometimes found where others are not
        for factor in TARGETS:
            target, reached = int(live * factor), peak
            if stuck and factor > 1:
                continue
            for rank in ranks:
                if target >= peak or work.left <= 0:
                    break
                lowered = _lower(sections, groups, offsets, target, rank, work, share)
                if lowered is not None:
                    offsets, peak = lowered, sections.peak(lowered)
            stuck = target < reached == peak
        share *= GROWTH
    return offsets, peak


def _lower(
    sections: Sections, groups: Sequence[Sequence[int]], offsets: list[int], target: int, rank: list[int], work: Effort, share: int
) -> list[int] | None:
    """The offsets with every group under `target`, or `None`."""
    lowered = list(offsets)
    for group in groups:
        if max(offsets[b] + sections.sizes[b] for b in group) <= target:
            continue
        portion = Effort(min(work.left, share * len(group) * len(group)))
        before = portion.left
        found = search(sections, group, target, rank, portion)
        work.left -= before - portion.left
        if found is None:
            return None
        for buffer, offset in found.items():
            lowered[buffer] = offset
    return lowered


def _ranks(sections: Sections) -> list[list[int]]:
    """Orders among buffers of the same offset: by lifetime, bytes × lifetime and the fullest section, in the combinations that MiniMalloc
    tries.
    """
    lengths = [len(covered) for covered in sections.covers]
    areas = [length * size for length, size in zip(lengths, sections.sizes, strict=True)]
    totals = [max(sections.totals[section] for section in covered) for covered in sections.covers]
    ranks = []
    for keys in ((totals, areas, lengths), (totals, lengths, areas), (lengths, areas, totals), (areas, lengths, totals)):
        order = sorted(range(len(lengths)), key=lambda b: tuple(-key[b] for key in keys))
        rank = [0] * len(order)
        for place, buffer in enumerate(order):
            rank[buffer] = place
        ranks.append(rank)
    return ranks
