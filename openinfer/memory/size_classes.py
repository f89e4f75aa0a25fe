"""The sizes in which a pool hands out memory: rounding requests to few sizes is what lets the next request use the last one's block."""

from __future__ import annotations

import bisect

PAGE = 4096
SMALL = 4 * PAGE  # blocks up to this size share a slab; larger ones are whole pages
LARGEST = 1 << 40


class SizeClasses:
    """Sizes that grow by the factor `growth`, in multiples of `alignment` bytes up to `SMALL` and of pages above."""

    def __init__(self, growth: float, alignment: int) -> None:
        self.sizes = [alignment]
        while self.sizes[-1] < LARGEST:
            size = max(int(self.sizes[-1] * growth), self.sizes[-1] + 1)
            self.sizes.append(_up(size, alignment if size <= SMALL else PAGE))

    def of(self, size_bytes: int) -> int:
        """The smallest class that holds `size_bytes`; beyond the largest class, whole pages."""
        place = bisect.bisect_left(self.sizes, size_bytes)
        return self.sizes[place] if place < len(self.sizes) else _up(size_bytes, PAGE)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
