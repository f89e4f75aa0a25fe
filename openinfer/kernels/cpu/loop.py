"""A counted loop with carried values, for `@intrinsic` emitters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openinfer.kernels.cpu.vectors import I64, i64


def counted(b: Any, start: Any, stop: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit `for at in range(start, stop): carried = body(at, carried)`; the carried values after it."""
    before = b.block
    head, inside, done = (b.append_basic_block(name) for name in ("loop", "loop.body", "loop.done"))
    b.branch(head)
    b.position_at_end(head)
    at = b.phi(I64)
    at.add_incoming(start, before)
    phis = [b.phi(value.type) for value in carried]
    for phi, value in zip(phis, carried, strict=True):
        phi.add_incoming(value, before)
    b.cbranch(b.icmp_signed("<", at, stop), inside, done)
    b.position_at_end(inside)
    new = body(at, phis)
    at.add_incoming(b.add(at, i64(1)), b.block)
    for phi, value in zip(phis, new, strict=True):
        phi.add_incoming(value, b.block)
    b.branch(head)
    b.position_at_end(done)
    return list(phis)
