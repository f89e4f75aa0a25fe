"""Search for a placement under a given peak: depth first over canonical placements, after MiniMalloc (Moffitt, ASPLOS 2023).

Every placement can be pushed down until each buffer rests on the bottom or on another, and its buffers be listed from the lowest to the
highest. The search lists them so: the next buffer comes no lower than the last (equal offsets in the order of `rank`), and not where
another one would still fit underneath. A branch ends where the bytes that a section still has to take no longer fit above its floor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from openinfer.memory.sections import Sections


@dataclasses.dataclass
class Effort:
    """Work left, in buffers looked at: the same on every machine, so that a plan is. Spent by `search`."""

    left: int


def search(sections: Sections, group: Sequence[int], peak_bytes: int, rank: Sequence[int], effort: Effort) -> dict[int, int] | None:
    """Offsets by buffer for one of `sections.components()`, none ending above `peak_bytes`; `None` where there is none, or the effort
    ran out. Of buffers with the same offset the one of lower `rank` is tried first.
    """
    sizes, covers, beside, members = sections.sizes, sections.covers, sections.beside, sections.members
    lowest = [0] * len(sizes)  # where each buffer would rest now
    floor, rest = [0] * len(members), [0] * len(members)
    unplaced = set(group)
    stretch = range(min(covers[b].start for b in group), max(covers[b].stop for b in group))
    for section in stretch:
        rest[section] = sections.totals[section]
        if rest[section] > peak_bytes:
            return None

    def candidates(offset: int, last: int) -> list[tuple[int, int, int]]:
        """Next buffers as (offset, rank, buffer), the most promising at the end."""
        roof = min(lowest[b] + sizes[b] for b in unplaced)
        found = [(lowest[b], rank[b], b) for b in unplaced if offset <= lowest[b] < roof]
        if last >= 0:
            found = [each for each in found if each[0] > offset or each[1] > last]
        found.sort(reverse=True)
        return found

    def rise(buffer: int, top: int, raised: list[tuple[int, int]]) -> bool:
        """Lift what lies beside a buffer that now ends at `top`; whether all of it still fits."""
        touched: set[int] = set()
        for other in beside[buffer]:
            if lowest[other] < top and other in unplaced:
                raised.append((other, lowest[other]))
                lowest[other] = top
                if top + sizes[other] > peak_bytes:
                    return False
                touched.update(covers[other])
        effort.left -= len(beside[buffer]) + len(stretch)
        base = lowest[buffer]
        for section in stretch:
            if rest[section] and rest[section] + (floor[section] if floor[section] > base else base) > peak_bytes:
                return False
        for section in touched:
            effort.left -= len(members[section])
            if rest[section] and rest[section] + min([lowest[b] for b in members[section] if b in unplaced]) > peak_bytes:
                return False
        return True

    # One frame a placed buffer: what is left to try in its place, the buffer, and what its placement changed.
    trail: list[tuple[list[tuple[int, int, int]], int, list[int], list[tuple[int, int]]]] = []
    waiting = candidates(0, -1)
    while True:
        while not waiting:
            if not trail:
                return None
            waiting, buffer, floors, raised = trail.pop()
            _undo(sizes[buffer], covers[buffer], floors, raised, lowest, floor, rest)
            unplaced.add(buffer)
        effort.left -= len(unplaced)
        if effort.left < 0:
            return None
        offset, order, buffer = waiting.pop()
        unplaced.discard(buffer)
        covered, top = covers[buffer], offset + sizes[buffer]
        floors, raised = floor[covered.start : covered.stop], []
        floor[covered.start : covered.stop] = [top] * len(covered)
        for section in covered:
            rest[section] -= sizes[buffer]
        if rise(buffer, top, raised):
            if not unplaced:
                return {b: lowest[b] for b in group}
            trail.append((waiting, buffer, floors, raised))
            waiting = candidates(offset, order)
        else:
            _undo(sizes[buffer], covered, floors, raised, lowest, floor, rest)
            unplaced.add(buffer)


def _undo(
    size: int,
    covered: range,
    floors: list[int],
    raised: list[tuple[int, int]],
    lowest: list[int],
    floor: list[int],
    rest: list[int],
) -> None:
    for other, before in raised:
        lowest[other] = before
    floor[covered.start : covered.stop] = floors
    for section in covered:
        rest[section] += size
