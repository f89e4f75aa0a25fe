"""Offset plans: verified, tight, and the verifier finds planted overlaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openinfer.memory.planner import Layout, Lifetime, plan, verify_layout

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
