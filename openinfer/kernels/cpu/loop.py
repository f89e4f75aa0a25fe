"""A counted loop with carried values, for `@intrinsic` emitters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from openinfer.kernels.cpu.vectors import I64, i64


def counted(
    b: Any, start: Any, stop: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]], *, rolled: bool = False
) -> list[Any]:
    """Emit `for at in range(start, stop): carried = body(at, carried)`; the carried values after it. `rolled`: see `keep_rolled`."""
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
    back = b.branch(head)
    if rolled:
        keep_rolled(b, back)
    b.position_at_end(done)
    return list(phis)


def keep_rolled(b: Any, branch: Any) -> None:
    """Forbid LLVM to unroll the loop that `branch` closes.

    Unrolled, the operands of the second step are loaded beside those of the first; where the accumulators fill the register file, that
    spills some of them to the stack in every step.
    """
    disable = b.module.add_metadata([ir.MetaDataString(b.module, "llvm.loop.unroll.disable")])
    loop = ir.values.MDValue(b.module, [disable], name=str(len(b.module.metadata)))
    loop.operands = (loop, disable)  # a loop's identity is a node whose first operand is itself
    branch.set_metadata("llvm.loop", loop)
