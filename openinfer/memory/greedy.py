"""Placement in one pass: buffers in a fixed order, each into the tightest hole that the ones before it leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from openinfer.memory.sections import Sections


def placements(sections: Sections) -> Iterator[list[int]]:
    """The offsets that each of four orders gives: by size, by size × lifetime, by start, by lifetime."""
    sizes, covers = sections.sizes, sections.covers
    orders: list[Callable[[int], tuple[int, ...]]] = [
        lambda b: (-sizes[b], covers[b].start),
        lambda b: (-sizes[b] * len(covers[b]), covers[b].start),
        lambda b: (covers[b].start, -sizes[b]),
        lambda b: (-len(covers[b]), -sizes[b]),
    ]
    for order in orders:
        yield _place(sections, sorted(range(len(sizes)), key=order))


def _place(sections: Sections, order: list[int]) -> list[int]:
    offsets = [-1] * len(order)
    for buffer in order:
        size = sections.sizes[buffer]
        taken = sorted((offsets[b], offsets[b] + sections.sizes[b]) for b in sections.beside[buffer] if offsets[b] >= 0)
        at, fit = 0, None
        for low, high in taken:
            if low - at >= size and (fit is None or low - at < fit[1]):
                fit = at, low - at
            at = max(at, high)
        offsets[buffer] = at if fit is None else fit[0]
    return offsets
