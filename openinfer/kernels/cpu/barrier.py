"""The barrier that a compiled program calls between steps. The code is the pool's, reached through the control block."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.control_block import BARRIER_CODE


@intrinsic
def barrier(typing_context: Any, control: Any, threads: Any) -> Any:
    """`barrier(control, threads)`: return once all `threads` of the running section are here; what they wrote before is visible after.

    `control` is word 1 of the program's table and `threads` the program's own argument; with fewer than two threads nothing happens.
    """

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        with builder.if_then(builder.icmp_signed(">", args[1], word(1))):
            slot = builder.inttoptr(builder.add(args[0], word(8 * BARRIER_CODE)), ir.PointerType())
            code = builder.load(slot, typ=word)
            kind = ir.FunctionType(ir.VoidType(), [word, word])
            builder.call(builder.inttoptr(code, kind.as_pointer()), list(args))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit
