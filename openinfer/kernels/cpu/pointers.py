"""Typed pointers from integer addresses: kernels take addresses, never arrays.

`f32(address)[i]` compiles to one load without bounds check or wrap-around.
"""

from __future__ import annotations

from typing import Any

import numba as nb
from numba import types
from numba.extending import intrinsic


def _pointer_to(element: Any) -> Any:
    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(element).as_pointer())

        return types.CPointer(element)(types.intp), emit

    return pointer


f32 = _pointer_to(types.float32)
f64 = _pointer_to(types.float64)
i8 = _pointer_to(types.int8)
i16 = _pointer_to(types.int16)
i32 = _pointer_to(types.int32)
i64 = _pointer_to(types.int64)
u8 = _pointer_to(types.uint8)
u16 = _pointer_to(types.uint16)
u32 = _pointer_to(types.uint32)
u64 = _pointer_to(types.uint64)

POINTERS = {
    "float32": f32,
    "float64": f64,
    "int8": i8,
    "int16": i16,
    "int32": i32,
    "int64": i64,
    "uint8": u8,
    "uint16": u16,
    "uint32": u32,
    "uint64": u64,
    "bool": u8,
}

NUMBA_TYPES = {
    "float32": nb.float32,
    "float64": nb.float64,
    "int8": nb.int8,
    "int16": nb.int16,
    "int32": nb.int32,
    "int64": nb.int64,
    "uint8": nb.uint8,
    "uint16": nb.uint16,
    "uint32": nb.uint32,
    "uint64": nb.uint64,
    "bool": nb.uint8,
}
