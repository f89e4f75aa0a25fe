"""Offset plans: verified, tight, and the verifier finds planted overlaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinfer.memory.planner import Layout, Lifetime, plan, verify_layout
from openinfer.memory.search import Effort, search
from openinfer.memory.sections import Sections

lifetimes = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 30), st.integers(0, 10)), max_size=25).map(
    lambda rows: [Lifetime(f"b{i}", size, first, first + length) for i, (size, first, length) in enumerate(rows)]
)


@given(lifetimes)
def test_plans_are_valid_and_never_below_the_bound(buffers):
    layout = plan(buffers)
    assert layout.peak_bytes >= layout.live_bytes
    assert all(offset % 64 == 0 for offset in layout.offsets.values())


def test_a_chain_needs_two_buffers():
    layout = plan([Lifetime(f"h{i}", 256, i, i + 1) for i in range(10)])
    assert layout.peak_bytes == 512
    assert layout.gap == 1.0


def test_overlap_is_found():
    buffers = [Lifetime("a", 64, 0, 2), Lifetime("b", 64, 1, 3)]
    with pytest.raises(AssertionError, match="overlap"):
        verify_layout(buffers, Layout({"a": 0, "b": 32}, 128, 128))
    with pytest.raises(AssertionError, match="outside"):
        verify_layout(buffers, Layout({"a": 0, "b": 96}, 128, 128))


def _cut(rng, first, last, low, high, pieces):
    """Cut a rectangle of time × bytes into pieces: a plan of gap 1 exists, for nothing of the rectangle is left over."""
    if pieces == 1 or (last == first and high - low < 128):
        return [Lifetime(f"{first}-{last}-{low}", high - low, first, last)]
    left = int(rng.integers(1, pieces))
    if last > first and (rng.random() < 0.5 or high - low < 128):
        at = int(rng.integers(first, last))
        return _cut(rng, first, at, low, high, left) + _cut(rng, at + 1, last, low, high, pieces - left)
    at = low + 64 * int(rng.integers(1, (high - low) // 64))
    return _cut(rng, first, last, low, at, left) + _cut(rng, first, last, at, high, pieces - left)


def test_the_search_packs_what_the_greedy_orders_do_not(seed):
    """Rectangles cut at random have a plan of gap 1; the search must close most of what the greedy orders leave open."""
    rng = np.random.default_rng(seed)
    cases = [_cut(rng, 0, 60, 0, 1 << 14, 40) for _ in range(12)]
    for buffers in cases:
        rng.shuffle(buffers)
    greedy, searched = ([plan(buffers, effort=effort).gap for buffers in cases] for effort in (0, 400_000))
    assert all(after <= before for before, after in zip(greedy, searched, strict=True))
    assert sum(greedy) > len(cases) and sum(searched) - len(cases) < 0.5 * (sum(greedy) - len(cases))


def test_equal_buffers_get_equal_offsets(seed):
    rng = np.random.default_rng(seed)
    buffers = _cut(rng, 0, 60, 0, 1 << 14, 60)
    assert plan(buffers, effort=200_000) == plan(list(buffers), effort=200_000)


def test_groups_that_share_no_moment_are_placed_apart():
    one = [Lifetime("a", 64, 0, 3), Lifetime("b", 128, 2, 5)]
    two = [Lifetime("c", 64, 6, 8), Lifetime("d", 192, 7, 9)]
    sections = Sections([(b.first, b.last, b.size_bytes) for b in one + two])
    assert sections.components() == [[0, 1], [2, 3]]
    assert sections.live_bytes == 256 and plan(one + two).peak_bytes == 256


def test_a_search_ends_without_effort_and_says_no_where_nothing_fits():
    sections = Sections([(0, 2, 64), (1, 3, 64), (3, 4, 128)])
    rank = [0, 1, 2]
    assert search(sections, [0, 1, 2], 128, rank, Effort(0)) is None
    assert search(sections, [0, 1, 2], 191, rank, Effort(1000)) is None
    assert search(sections, [0, 1, 2], 192, rank, Effort(1000)) is not None
