"""Regions never overlap, and what was given back is whole again."""

from __future__ import annotations

import random
import secrets

import pytest

from openinfer.errors import MemoryBudgetError
from openinfer.sandbox.regions import Regions, rounded


def test_random_takes_and_returns_never_overlap_and_coalesce() -> None:
    seed = secrets.randbits(32)
    print(f"{seed=}")
    generator = random.Random(seed)
    regions = Regions(4096, 4096 + (1 << 16))
    held: list[tuple[int, int]] = []
    for _ in range(3000):
        if held and generator.random() < 0.5:
            regions.give_back(*held.pop(generator.randrange(len(held))))
            continue
        size = generator.randrange(0, 5000)
        try:
            start = regions.take(size)
        except MemoryBudgetError:
            continue
        assert start % 64 == 0 and start >= 4096 and start + rounded(size) <= 4096 + (1 << 16)
        assert all(start + rounded(size) <= other or other + rounded(length) <= start for other, length in held)
        held.append((start, size))
    for start, size in held:
        regions.give_back(start, size)
    assert regions.free_bytes == 1 << 16
    assert regions.take(1 << 16) == 4096
    with pytest.raises(MemoryBudgetError, match="64 bytes do not fit the 0 that are free"):
        regions.take(1)
