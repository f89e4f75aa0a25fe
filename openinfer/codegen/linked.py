"""The other form of a program, for graphs of many different kernels: LLVM IR that calls each kernel at its own address.

    ; k0: gemm(activation='Relu', dtype='float32', k=40, ...), sizes (None, 64, 40, 64)
    define i32 @program(ptr %result, ptr %error, i64 %word, i64 %thread, i64 %threads) alignstack(64) {
      %table = inttoptr i64 %word to ptr
      %few = icmp slt i64 %threads, 2
      br i1 %few, label %alone, label %together
    alone:
      %v1 = getelementptr i64, ptr %table, i64 8
      %v2 = load i64, ptr %v1
      %v3 = call i32 @k0(ptr %result, ptr %error, i64 %v2, ..., i64 64, i64 0, i64 1)     ; addresses, sizes, low, high
      ...

It computes what `program.source` writes as Python. A kernel with its statics and sizes is compiled once for all steps and models that
want it, and is kept in the object cache on its own. A step costs a call, and Numba infers no types for the program's hundreds of lines.

A timed program reads the clock before its first step and after each one, into a row of words for each thread (`runtime/layer_timer.py`).
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from typing import NamedTuple

from openinfer.codegen.program import HEADER, Literals, Skeleton
from openinfer.kernels.cpu.control_block import BARRIER_CODE, TABLE_CONTROL, TABLE_STAMPS

SYMBOL = "program"
INLINED_KERNELS = 16  # up to here a program and its kernels are one function
DEEP_KERNELS = ("conv", "conv_filters")  # their first size is their depth
MOST_FORMS = 4  # a kernel with more sets of sizes than this in one program is compiled once and takes its sizes as arguments


# The clock of `time.perf_counter_ns`.
_CLOCK = f"""declare i32 @clock_gettime(i32, ptr)
define internal void @stamp(ptr %row, i64 %step) noinline {{
  %time = alloca [2 x i64]
  call i32 @clock_gettime(i32 {getattr(time, "CLOCK_MONOTONIC", 1)}, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %rest
  %at = getelementptr i64, ptr %row, i64 %step
  store i64 %ns, ptr %at
  ret void
}}"""


class Kernel(NamedTuple):
    """What a program calls at one address: a kernel with its statics, and which of its sizes are compiled in (`None`: an argument)."""

    name: str
    statics: tuple[tuple[str, Hashable], ...]
    sizes: tuple[int | None, ...]


class Slot(int):
    """A number that is read from this word of the table."""


class Call(NamedTuple):
    """A step: the number of its kernel, its buffers, the bytes of a thread's part of each that has parts, and the numbers it is given."""

    kernel: int
    buffers: tuple[Slot, ...]
    strides: tuple[int | None, ...]
    sizes: tuple[int, ...]
    blocks: int
    limit: int


def is_linked(shape: Skeleton, fixed: Literals) -> bool:
    """Whether a program has too many different kernels to be compiled as one function. Of the sizes only depths play a part, which no
    batch changes: convolutions of different depths are no less code for sharing a kernel.
    """
    depths = (kept[0] if step.kernel in DEEP_KERNELS else None for step, kept in zip(shape.steps, fixed, strict=True))
    return len({(step.kernel, step.statics, depth) for step, depth in zip(shape.steps, depths, strict=True)}) > INLINED_KERNELS


def text(shape: Skeleton, fixed: Literals, threads: int, timed: bool = False) -> tuple[str, list[Kernel]]:
    """The program's LLVM IR and the kernels it calls as @k0, @k1, …; `threads` above 1 adds the parallel body, `timed` the stamps."""
    kernels: dict[Kernel, int] = {}
    steps = list(calls(shape, fixed, kernels))
    arity = {call.kernel: len(call.buffers) + len(call.sizes) + 2 for call in steps}
    out = _Body(len(steps) + 1 if timed else 0)
    for kernel, index in kernels.items():
        statics = ", ".join(f"{name}={value!r}" for name, value in kernel.statics)
        out.lines.append(f"; k{index}: {kernel.name}({statics}), sizes {kernel.sizes}")
    out.lines += ["declare i64 @llvm.smin.i64(i64, i64)", *([_CLOCK] if timed else [])]
    out.lines += [f"declare i32 @k{kernel}({', '.join(['ptr', 'ptr', *['i64'] * count])})" for kernel, count in arity.items()]
    out.lines += [
        f"define i32 @{SYMBOL}(ptr %result, ptr %error, i64 %word, i64 %thread, i64 %threads) alignstack(64) {{",
        "  %table = inttoptr i64 %word to ptr",
        "  %status = alloca i32",
        "  store i32 0, ptr %status",
    ]
    out.open_row()
    if threads > 1:
        out.lines += ["  %few = icmp slt i64 %threads, 2", "  br i1 %few, label %alone, label %together", "together:"]
        out.together(steps)
        out.end()
        out.lines.append("alone:")
    out.stamp(0)
    for index, call in enumerate(steps):
        out.kernel(call, [out.number(buffer) for buffer in call.buffers], "0", out.number(call.blocks))
        out.stamp(index + 1)
    out.end()
    out.lines += ["}", ""]
    return "\n".join(out.lines), list(kernels)


def calls(shape: Skeleton, fixed: Literals, kernels: dict[Kernel, int]) -> Iterator[Call]:
    """The steps in order; numbers the kernels by first use."""
    wanted = [
        Kernel(step.kernel, step.statics, kept[: len(kept) - 2 - sum(step.private)]) for step, kept in zip(shape.steps, fixed, strict=True)
    ]
    forms: dict[tuple[str, tuple[tuple[str, Hashable], ...]], set[Kernel]] = {}
    for kernel in wanted:
        forms.setdefault((kernel.name, kernel.statics), set()).add(kernel)
    slot = HEADER + len(shape.buffers)
    for step, kept, kernel in zip(shape.steps, fixed, wanted, strict=True):
        values: list[int] = []
        for value in kept:
            values.append(Slot(slot) if value is None else value)
            slot += value is None
        count = len(kernel.sizes)
        if len(forms[step.kernel, step.statics]) > MOST_FORMS:
            kernel = kernel._replace(sizes=(None,) * count)
        strides = iter(values[count:-2])
        yield Call(
            kernels.setdefault(kernel, len(kernels)),
            tuple(Slot(HEADER + buffer) for buffer in step.buffers),
            tuple(next(strides) if own else None for own in step.private),
            tuple(value for value, size in zip(values[:count], kernel.sizes, strict=True) if size is None),
            values[-2],
            values[-1],
        )


class _Body:
    """Lines of IR, with names for the values that they define."""

    def __init__(self, stamps: int) -> None:
        """`stamps` are the words of a thread's row; 0: the program is not timed."""
        self.lines: list[str] = []
        self._count = 0
        self._stamps = stamps
        self._row = ""

    def open_row(self) -> None:
        """Find the row of this thread, where the program is timed."""
        if self._stamps:
            row = self._own(Slot(TABLE_STAMPS), 8 * self._stamps)
            self._row = self._value(f"inttoptr i64 {row} to ptr")

    def stamp(self, step: int) -> None:
        """Note the time, where the program is timed."""
        if self._stamps:
            self.lines.append(f"  call void @stamp(ptr {self._row}, i64 {step})")

    def together(self, calls: list[Call]) -> None:
        """Each thread's share of the blocks of every step, and a barrier after it."""
        control = self.number(Slot(TABLE_CONTROL))
        at = self._value(f"add i64 {control}, {8 * BARRIER_CODE}")
        barrier = self._value(f"load ptr, ptr {self._value(f'inttoptr i64 {at} to ptr')}")
        self.stamp(0)
        for index, call in enumerate(calls):
            threads = self._value(f"call i64 @llvm.smin.i64(i64 %threads, i64 {self.number(call.limit)})")
            busy = self._value(f"icmp slt i64 %thread, {threads}")
            self.lines += [f"  br i1 {busy}, label %share{index}, label %join{index}", f"share{index}:"]
            blocks = self.number(call.blocks)
            first = self._value(f"mul i64 {blocks}, %thread")
            low = self._value(f"udiv i64 {first}, {threads}")
            high = self._value(f"udiv i64 {self._value(f'add i64 {first}, {blocks}')}, {threads}")
            self.kernel(call, [self._own(*pair) for pair in zip(call.buffers, call.strides, strict=True)], low, high)
            self.lines += [f"  br label %join{index}", f"join{index}:", f"  call void {barrier}(i64 {control}, i64 %threads)"]
            self.stamp(index + 1)

    def kernel(self, call: Call, addresses: list[str], low: str, high: str) -> None:
        """One call of a kernel; a status other than 0 is the program's."""
        arguments = [*addresses, *(self.number(size) for size in call.sizes), low, high]
        found = self._value(f"call i32 @k{call.kernel}(ptr %result, ptr %error, {', '.join(f'i64 {value}' for value in arguments)})")
        earlier = self._value("load i32, ptr %status")
        self.lines.append(f"  store i32 {self._value(f'or i32 {found}, {earlier}')}, ptr %status")

    def end(self) -> None:
        """Return the status."""
        self.lines.append(f"  ret i32 {self._value('load i32, ptr %status')}")

    def number(self, number: int) -> str:
        """A literal, or the value of the table's word."""
        if not isinstance(number, Slot):
            return str(number)
        return self._value(f"load i64, ptr {self._value(f'getelementptr i64, ptr %table, i64 {int(number)}')}")

    def _own(self, buffer: Slot, stride: int | None) -> str:
        """A buffer's address; of one that every thread has its part of, the address of this thread's part."""
        address = self.number(buffer)
        return address if stride is None else self._value(f"add i64 {address}, {self._value(f'mul i64 %thread, {self.number(stride)}')}")

    def _value(self, expression: str) -> str:
        self._count += 1
        self.lines.append(f"  %v{self._count} = {expression}")
        return f"%v{self._count}"
