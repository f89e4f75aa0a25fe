"""Functions whose stack frame starts on a cache line.

Vectors that do not fit the registers are spilled to the stack. Left to lie as the thread's stack happens to, they made a product of
30 × 256 by 256 × 256 take 36.6 µs in some processes and 55 or 65 in others (docs/decisions/0006-stack-frames.md).
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

LINE = 64  # bytes of a cache line


def align(builder: Any) -> None:
    """Align the frame of the function that is being built."""
    attributes = builder.function.attributes
    attributes.alignstack = LINE
    attributes.add("nounwind")  # llvmlite writes no attributes at all where this set is empty


@intrinsic
def aligned_frame(typing_context: Any) -> Any:
    """`aligned_frame()`: align the frame of the caller. Inlined functions bring their spills, but not their alignment."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        align(builder)
        return context.get_dummy_value()

    return types.void(), emit
