"""Explicit LLVM vectors for `@intrinsic` emitters, by element type and the machine's width.

LLVM's overloaded intrinsics are called by their mangled names, because llvmlite's `declare_intrinsic` rejects vector types.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from openinfer.kernels.cpu import frame
from openinfer.machine import host

I32, I64 = ir.IntType(32), ir.IntType(64)


def i64(value: int) -> Any:
    """A constant index."""
    return ir.Constant(I64, value)


@dataclasses.dataclass(frozen=True)
class VectorType:
    """Vectors of `lanes` elements of `dtype`, and the operations that kernels emit on them."""

    dtype: str
    lanes: int

    @property
    def scalar(self) -> Any:
        """The element's LLVM type."""
        return {"float32": ir.FloatType, "float64": ir.DoubleType}[self.dtype]()

    @property
    def type(self) -> Any:
        """The vector's LLVM type."""
        return ir.VectorType(self.scalar, self.lanes)

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return {"float32": 4, "float64": 8}[self.dtype]

    @property
    def suffix(self) -> str:
        """LLVM's name of the type in mangled intrinsics."""
        return f"v{self.lanes}f{8 * self.item_bytes}"

    def splat(self, builder: Any, scalar: Any) -> Any:
        """All lanes equal to `scalar`."""
        undefined = ir.Constant(self.type, ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes))

    def constant(self, value: float) -> Any:
        """All lanes equal to a number known now."""
        return ir.Constant(self.type, [value] * self.lanes)

    def load(self, builder: Any, base: Any, index: Any) -> Any:
        """Unaligned load of elements index … index + lanes - 1 of the pointer `base`."""
        return builder.load(self.at(builder, base, index), align=self.item_bytes, typ=self.type)

    def load_first(self, builder: Any, base: Any, index: Any, count: Any, otherwise: float) -> Any:
        """Load the first `count` lanes (an i64), the others are `otherwise`; the memory after them is not touched."""
        lane = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        mask = builder.icmp_signed("<", lane, self._broadcast_index(builder, count))
        kind = ir.FunctionType(self.type, [ir.PointerType(), I32, mask.type, self.type])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.{self.suffix}.p0")
        return builder.call(function, [self.at(builder, base, index), ir.Constant(I32, self.item_bytes), mask, self.constant(otherwise)])

    def load_scalar(self, builder: Any, base: Any, index: Any) -> Any:
        """One element."""
        return builder.load(self.at(builder, base, index), align=self.item_bytes, typ=self.scalar)

    def store(self, builder: Any, value: Any, base: Any, index: Any) -> None:
        """Unaligned store of a whole vector."""
        builder.store(value, self.at(builder, base, index), align=self.item_bytes)

    def store_first(self, builder: Any, value: Any, base: Any, index: Any, count: Any) -> None:
        """Store the first `count` lanes (an i64); the memory after them is not touched."""
        self.store_between(builder, value, base, index, i64(0), count)

    def store_between(self, builder: Any, value: Any, base: Any, index: Any, low: Any, high: Any, step: int = 1) -> None:
        """Store the lanes low … high - 1 (i64) of a vector whose lane l belongs at `index` + l · `step`; no other memory is touched."""
        lane = ir.Constant(ir.VectorType(I64, self.lanes), list(range(self.lanes)))
        below = builder.icmp_signed("<", lane, self._broadcast_index(builder, high))
        mask = below
        if not (isinstance(low, ir.Constant) and low.constant == 0):
            mask = builder.and_(below, builder.icmp_signed(">=", lane, self._broadcast_index(builder, low)))
        alignment, place = ir.Constant(I32, self.item_bytes), self.at(builder, base, index)
        if step == 1:
            kind = ir.FunctionType(ir.VoidType(), [self.type, ir.PointerType(), I32, mask.type])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.{self.suffix}.p0")
            builder.call(function, [value, place, alignment, mask])
            return
        # By integers: llvmlite gives a getelementptr with a vector of indices the type of one pointer.
        steps = ir.Constant(ir.VectorType(I64, self.lanes), [lane * step * self.item_bytes for lane in range(self.lanes)])
        numbers = builder.add(self._broadcast_index(builder, builder.ptrtoint(place, I64)), steps)
        places = builder.inttoptr(numbers, ir.VectorType(ir.PointerType(), self.lanes))
        kind = ir.FunctionType(ir.VoidType(), [self.type, places.type, I32, mask.type])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.scatter.{self.suffix}.v{self.lanes}p0")
        builder.call(function, [value, places, alignment, mask])

    def _broadcast_index(self, builder: Any, index: Any) -> Any:
        undefined = ir.Constant(ir.VectorType(I64, self.lanes), ir.Undefined)
        first = builder.insert_element(undefined, index, ir.Constant(I32, 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes))

    def at(self, builder: Any, base: Any, index: Any) -> Any:
        """The address of one element."""
        frame.align(builder.function)  # whatever touches vectors comes through here
        return builder.gep(base, [index], source_etype=self.scalar)

    def fma(self, builder: Any, a: Any, b: Any, c: Any) -> Any:
        """a · b + c, rounded once."""
        return self._call(builder, "fma", a, b, c)

    def maximum(self, builder: Any, a: Any, b: Any) -> Any:
        """The larger, `a` of equals, NaN where either is NaN; of scalars too."""
        return self._extreme(builder, ">", a, b)

    def minimum(self, builder: Any, a: Any, b: Any) -> Any:
        """The smaller, `a` of equals, NaN where either is NaN; of scalars too."""
        return self._extreme(builder, "<", a, b)

    def _extreme(self, builder: Any, better: str, a: Any, b: Any) -> Any:
        # The first operand of an ordered comparison is what x86 drops where either is NaN: a NaN in `a` stays.
        chosen = builder.select(builder.fcmp_ordered(better, b, a), b, a)
        return builder.select(builder.fcmp_unordered("uno", b, b), b, chosen)

    def at_least(self, builder: Any, a: Any, bound: Any) -> Any:
        """`a`, or `bound` where that is larger; NaN where `a` is NaN. `bound` is a number, which saves half of `maximum`."""
        return builder.select(builder.fcmp_unordered(">", a, bound), a, bound)

    def at_most(self, builder: Any, a: Any, bound: Any) -> Any:
        """`a`, or `bound` where that is smaller; NaN where `a` is NaN. `bound` is a number."""
        return builder.select(builder.fcmp_unordered("<", a, bound), a, bound)

    def nearest(self, builder: Any, a: Any) -> Any:
        """The nearest integers, halves to even."""
        return self._call(builder, "rint", a)

    def magnitude(self, builder: Any, a: Any) -> Any:
        """Absolute values."""
        return self._call(builder, "fabs", a)

    def two_to_the(self, builder: Any, exponent: Any) -> Any:
        """2 ** exponent for integer-valued exponents in the normal range, built from its bits."""
        integer = ir.VectorType(ir.IntType(8 * self.item_bytes), self.lanes)
        bias, shift = {4: (127, 23), 8: (1023, 52)}[self.item_bytes]
        whole = builder.add(builder.fptosi(exponent, integer), ir.Constant(integer, [bias] * self.lanes))
        return builder.bitcast(builder.shl(whole, ir.Constant(integer, [shift] * self.lanes)), self.type)

    def _call(self, builder: Any, name: str, *arguments: Any) -> Any:
        kind = ir.FunctionType(self.type, [self.type] * len(arguments))
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{self.suffix}"), arguments)


def widest(dtype: str) -> VectorType:
    """The machine's full vector of `dtype`."""
    return VectorType(dtype, host().lanes(dtype))
