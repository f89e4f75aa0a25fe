"""Functions whose stack frame starts on a cache line.

Vectors that do not fit the registers are spilled to the stack. Left to lie as the thread's stack happens to, they made a product of
30 × 256 by 256 × 256 take 36.6 µs in some processes and 55 or 65 in others (docs/decisions/0006-stack-frames.md).
"""

from __future__ import annotations

from typing import Any

LINE = 64  # bytes of a cache line


def align(function: Any) -> None:
    """Align the frame of a function of llvmlite's. Inlined functions bring their spills to their caller, but not their alignment."""
    attributes = function.attributes
    attributes.alignstack = LINE
    attributes.add("nounwind")  # llvmlite writes no attributes at all where this set is empty
