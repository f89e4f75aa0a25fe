"""Whole pages inside regions: best fit, neighbours joined, idle pages given back to the operating system.

A free extent is dirty (it has been used and is still in memory) or clean (untouched, or given back). The two are never joined, so that the
bytes that are in memory are known exactly without asking the system.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable

from openinfer.memory.region import Region
from openinfer.memory.size_classes import PAGE


@dataclasses.dataclass(slots=True)
class Extent:
    """A free stretch of a region; `since` is when it was freed."""

    offset: int
    size: int
    dirty: bool
    since: float


@dataclasses.dataclass(slots=True, eq=False)
class Held:
    """A region with its free extents by their first and by their last byte."""

    number: int
    region: Region
    starts: dict[int, Extent] = dataclasses.field(default_factory=dict)
    ends: dict[int, Extent] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True, eq=False)
class Block:
    """A stretch of a region that is handed out; `slab` is the block that it was cut from."""

    held: Held
    offset: int
    size: int
    slab: Slab | None = None


@dataclasses.dataclass(slots=True, eq=False)
class Slab:
    """A block that is cut into small ones of one size; `leased` counts those that are handed out."""

    block: Block
    leased: int = 0


class Heap:
    """Sizes are multiples of a page. Not safe for several threads: the pool that owns it holds a lock."""

    def __init__(self, new_region: Callable[[int], Region]) -> None:
        self._new_region = new_region
        self._held: dict[int, Held] = {}
        self._free: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}  # dirty → (size, region, offset), sorted
        self._next = 0
        self.dirty_bytes = 0
        self.mapped_bytes = 0

    @property
    def regions(self) -> list[Region]:
        """What is mapped now."""
        return [held.region for held in self._held.values()]

    def take(self, size: int, dirty: bool) -> Block | None:
        """A block from the tightest dirty, or clean, extent that holds it."""
        free = self._free[dirty]
        place = bisect.bisect_left(free, (size, -1, -1))
        if place == len(free):
            return None
        found, number, offset = free.pop(place)
        held = self._held[number]
        extent = held.starts.pop(offset)
        del held.ends[offset + found]
        if dirty:
            self.dirty_bytes -= found
        if found > size:
            self._insert(held, Extent(offset + size, found - size, dirty, extent.since))
        return Block(held, offset, size)

    def give(self, block: Block, now: float) -> None:
        """Take a block back as a dirty extent."""
        self._insert(block.held, Extent(block.offset, block.size, True, now))

    def grow(self, size: int) -> None:
        """Map a region of `size` bytes, clean. `OSError` or `ValueError` where the system refuses."""
        held = Held(self._next, self._new_region(size))
        self._next += 1
        self._held[held.number] = held
        self.mapped_bytes += size
        self._insert(held, Extent(0, size, False, 0.0))

    def purge(self, size: int) -> int:
        """Give back `size` bytes of dirty extents, what has been free for longest first, and unmap regions that are free as a whole; the
        bytes given back.
        """
        oldest = sorted((self._held[number].starts[offset].since, number, offset) for _, number, offset in self._free[True])
        given = 0
        for _, number, offset in oldest:
            if given >= size:
                break
            held = self._held[number]
            extent = held.starts[offset]
            self._remove(held, extent)
            kept = max(0, extent.size - (size - given)) // PAGE * PAGE
            if kept:
                self._insert(held, Extent(offset, kept, True, extent.since))
            held.region.purge(offset + kept, extent.size - kept)
            given += extent.size - kept
            self._insert(held, Extent(offset + kept, extent.size - kept, False, extent.since))
        for found, number, _ in list(self._free[False]):
            if found == self._held[number].region.size_bytes:
                self._unmap(self._held[number])
        return given

    def _unmap(self, held: Held) -> None:
        self._remove(held, held.starts[0])
        self.mapped_bytes -= held.region.size_bytes
        del self._held[held.number]

    def _insert(self, held: Held, extent: Extent) -> None:
        """Join with free neighbours in the same state; the age of the largest is the age of all."""
        for neighbour in (held.ends.get(extent.offset), held.starts.get(extent.offset + extent.size)):
            if neighbour is not None and neighbour.dirty == extent.dirty:
                self._remove(held, neighbour)
                since = neighbour.since if neighbour.size > extent.size else extent.since
                extent = Extent(min(extent.offset, neighbour.offset), extent.size + neighbour.size, extent.dirty, since)
        held.starts[extent.offset] = held.ends[extent.offset + extent.size] = extent
        bisect.insort(self._free[extent.dirty], (extent.size, held.number, extent.offset))
        if extent.dirty:
            self.dirty_bytes += extent.size

    def _remove(self, held: Held, extent: Extent) -> None:
        del held.starts[extent.offset], held.ends[extent.offset + extent.size]
        free = self._free[extent.dirty]
        del free[bisect.bisect_left(free, (extent.size, held.number, extent.offset))]
        if extent.dirty:
            self.dirty_bytes -= extent.size
