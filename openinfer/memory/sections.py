"""Lifetimes cut into sections, the stretches of time in which the set of live buffers stays the same: what placements are made from."""

from __future__ import annotations

from collections.abc import Sequence


class Sections:
    """Buffers by number: their sizes, the sections that each is live in, and the buffers beside which each is live.

    A buffer of `spans[i] = (first, last, size_bytes)` is live from `first` to `last`, both included.
    """

    def __init__(self, spans: Sequence[tuple[int, int, int]]) -> None:
        bounds = sorted({edge for first, last, _ in spans for edge in (first, last + 1)})
        place = {edge: number for number, edge in enumerate(bounds)}
        self.sizes = [size for *_, size in spans]
        self.covers = [range(place[first], place[last + 1]) for first, last, _ in spans]
        self.members: list[list[int]] = [[] for _ in bounds[1:]]
        for buffer, covered in enumerate(self.covers):
            for section in covered:
                self.members[section].append(buffer)
        self.totals = [sum(self.sizes[buffer] for buffer in live) for live in self.members]
        self.beside: list[list[int]] = []
        starting = _starting(self.covers, len(self.members))
        for buffer, covered in enumerate(self.covers):
            others = dict.fromkeys(self.members[covered.start])
            for section in covered[1:]:
                others.update(dict.fromkeys(starting[section]))
            others.pop(buffer)
            self.beside.append(list(others))

    @property
    def live_bytes(self) -> int:
        """Maximum live bytes: no placement has a lower peak."""
        return max(self.totals, default=0)

    def peak(self, offsets: Sequence[int]) -> int:
        """The end of the highest buffer."""
        return max((offset + size for offset, size in zip(offsets, self.sizes, strict=True)), default=0)

    def components(self) -> list[list[int]]:
        """Buffers in groups that share no section, in order of time: each group is placed by itself."""
        groups: list[list[int]] = []
        end = -1
        for buffer in sorted(range(len(self.sizes)), key=lambda b: self.covers[b].start):
            if self.covers[buffer].start >= end:
                groups.append([])
            groups[-1].append(buffer)
            end = max(end, self.covers[buffer].stop)
        return groups


def _starting(covers: Sequence[range], count: int) -> list[list[int]]:
    starting: list[list[int]] = [[] for _ in range(count)]
    for buffer, covered in enumerate(covers):
        starting[covered.start].append(buffer)
    return starting
