"""Arenas start where they should, own their memory, and lie on huge pages where asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openinfer.memory.arena import HUGE_PAGE, aligned_copy, allocate


@pytest.mark.parametrize("huge", [False, True])
@pytest.mark.parametrize("alignment", [64, 128, 4096])
@pytest.mark.parametrize("size", [0, 1, 63, 4097])
def test_arenas_are_aligned_and_whole(size, alignment, huge):
    arena = allocate(size, alignment, huge)
    assert arena.nbytes == size and (not size or arena.ctypes.data % alignment == 0)  # NumPy gives nothing an address of its own
    arena[...] = 7
    assert (arena == 7).all()


def test_copies_keep_shape_and_content():
    for array in (np.arange(12.0).reshape(3, 4).T, np.zeros((0, 3)), np.float32(3)):
        copy = aligned_copy(np.asarray(array), 4096)
        assert copy.shape == array.shape and copy.dtype == array.dtype and copy.flags.c_contiguous
        assert (copy == array).all() and copy.ctypes.data % 4096 == 0


def test_huge_pages_are_private_memory_that_the_kernel_may_join():
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("needs a kernel with transparent huge pages")
    arena = allocate(4 * HUGE_PAGE, huge_pages=True)
    arena[...] = 1
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= arena.ctypes.data < high
        elif inside and first == "VmFlags:":
            assert "hg" in line.split() and "sh" not in line.split()
            return
    raise AssertionError("the arena is in no mapping")
