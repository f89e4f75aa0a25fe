"""The shape of a compiled program and the source that is generated for it.

    # k0: gemm(activation='Relu', dtype='float32', k=40, …)
    def program(table, thread, threads):
        t = i64(table)
        if threads < 2:
            k0(t[8], t[9], t[10], t[11], 1, 64, 40, 64, 0, 1)     # kernel(addresses, sizes, low, high): fixed numbers are literals
            k1(t[11], t[12], t[14], t[15], 0, t[15])              # ... the others are read from the table
        else:                                                     # only where the configuration allows threads
            w = min(threads, t[16])                               # threads that this step is worth
            if thread < w:
                k0(t[8], t[9], t[10], t[11], 1, 64, 40, 64, 1 * thread // w, 1 * (thread + 1) // w)
            barrier(t[1], threads)
            ...
        if wrong:                                                 # only after `wrong = 0` and `wrong += k2(...)`, a kernel that counts
            raise IndexError                                      # indices outside their axis; entry_ir reports it

`table` is an int64 array: a header, one slot per buffer address, one per number that varies with the input shapes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

from openinfer.codegen.lowering import Lowered
from openinfer.kernels.cpu.registry import INDEXED
from openinfer.ops._base import Operand, Packed, Scratch, Step

HEADER = 8
LINE = 64
SECTION_NS = 2_000  # a step shorter than this is not worth a second thread

Buffer = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class StepShape:
    """What of a step is compiled in: the kernel, its statics, which buffers it takes, which of them every thread has its own part of."""

    kernel: str
    statics: tuple[tuple[str, Hashable], ...]
    buffers: tuple[int, ...]
    private: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """Everything about a lowered graph except its numbers. Equal skeletons can share one program."""

    steps: tuple[StepShape, ...]
    buffers: tuple[Buffer, ...]


Numbers = tuple[tuple[int, ...], ...]
Literals = tuple[tuple[int | None, ...], ...]


def skeleton(lowered: Lowered, threads: int) -> tuple[Skeleton, Numbers]:
    """The skeleton and, per step, its numbers: the sizes, the stride of each private buffer, the blocks, the threads that it is worth."""
    written = {
        ("value", operand.name)
        for step in lowered.steps
        for i in step.writes
        if not isinstance(operand := step.operands[i], (Packed, Scratch))
    }
    outputs = {root: name for name, root in lowered.buffers.items()}
    inputs = {value.name for value in lowered.inputs}
    positions: dict[Buffer, int] = {}

    def position(operand: Operand) -> int:
        if isinstance(operand, Packed):
            key = ("packed", operand.key)
        elif isinstance(operand, Scratch):
            key = ("scratch", operand.name)
        else:
            root = lowered.root(operand.name)
            if root in outputs:
                key = ("output", outputs[root])
            elif root in inputs:
                key = ("input", root)
            elif ("value", root) in written:
                key = ("arena", root)
            else:
                key = ("data", root)
        return positions.setdefault(key, len(positions))

    for name in inputs:
        positions.setdefault(("input", name), len(positions))
    steps = tuple(
        StepShape(
            step.kernel,
            tuple(sorted(step.statics.items())),
            tuple(position(operand) for operand in step.operands),
            tuple(isinstance(operand, Scratch) and operand.per_thread for operand in step.operands),
        )
        for step in lowered.steps
    )
    return Skeleton(steps, tuple(positions)), tuple(_numbers(step, threads) for step in lowered.steps)


def _numbers(step: Step, threads: int) -> tuple[int, ...]:
    strides = [private_bytes(operand) for operand in step.operands if isinstance(operand, Scratch) and operand.per_thread]
    return (*step.sizes, *strides, step.blocks, threads if step.cost_ns > SECTION_NS else 1)


def private_bytes(scratch: Scratch) -> int:
    """Bytes of one thread's part, in whole cache lines."""
    return -(-scratch.size_bytes // LINE) * LINE


def literals(examples: Sequence[Numbers]) -> Literals:
    """The numbers that all examples agree on; `None` where they differ."""
    return tuple(
        tuple(values[0] if len(set(values)) == 1 else None for values in zip(*rows, strict=True)) for rows in zip(*examples, strict=True)
    )


def fits(numbers: Numbers, fixed: Literals) -> bool:
    """Whether a program compiled with these literals serves these numbers."""
    return all(f is None or f == n for row, kept in zip(numbers, fixed, strict=True) for n, f in zip(row, kept, strict=True))


def varying(numbers: Numbers, fixed: Literals) -> list[int]:
    """The numbers that go into the table, in slot order."""
    return [n for row, kept in zip(numbers, fixed, strict=True) for n, f in zip(row, kept, strict=True) if f is None]


def source(shape: Skeleton, fixed: Literals, threads: int) -> tuple[str, list[tuple[str, dict[str, Hashable]]]]:
    """The program's Python source and the kernels it calls as k0, k1, …; `threads` above 1 adds the parallel body."""
    kernels: dict[tuple[str, tuple[tuple[str, Hashable], ...]], int] = {}
    slot = HEADER + len(shape.buffers)
    alone: list[str] = []
    together: list[str] = []
    for step, kept in zip(shape.steps, fixed, strict=True):
        name = f"k{kernels.setdefault((step.kernel, step.statics), len(kernels))}"
        numbers = []
        for value in kept:
            numbers.append(str(value) if value is not None else f"t[{slot}]")
            slot += value is None
        *sizes, blocks, limit = numbers
        sizes, strides = sizes[: len(sizes) - sum(step.private)], iter(sizes[len(sizes) - sum(step.private) :])
        addresses = [f"t[{HEADER + buffer}]" for buffer in step.buffers]
        own = [
            f"{address} + thread * {next(strides)}" if private else address
            for address, private in zip(addresses, step.private, strict=True)
        ]
        name = f"wrong += {name}" if step.kernel in INDEXED else name
        alone.append(f"{name}({', '.join([*addresses, *sizes, '0', blocks])})")
        share = [f"{blocks} * thread // w", f"{blocks} * (thread + 1) // w"]
        together += [
            f"w = min(threads, {limit})",
            "if thread < w:",
            f"    {name}({', '.join([*own, *sizes, *share])})",
            "barrier(t[1], threads)",
        ]
    header = [
        f"# k{index}: {kernel}({', '.join(f'{name}={value!r}' for name, value in statics)})" for (kernel, statics), index in kernels.items()
    ]
    lines = [*header, "def program(table, thread, threads):", "    t = i64(table)"]
    counted = any(step.kernel in INDEXED for step in shape.steps)
    if counted:
        lines.append("    wrong = 0")
    if threads < 2:
        lines += [f"    {line}" for line in alone]
    else:
        lines += ["    if threads < 2:", *(f"        {line}" for line in alone or ["return"])]
        lines += ["    else:", *(f"        {line}" for line in together or ["return"])]
    if counted:
        lines += ["    if wrong:", "        raise IndexError"]
    return "\n".join(lines) + "\n", [(kernel, dict(statics)) for kernel, statics in kernels]
