"""The shape of a compiled program and the source that is generated for it.

    def program(table, thread, threads):
        t = i64(table)
        k0(t[8], t[9], t[10], t[11], 1, 64, 40, 64, 0, 1)     # kernel(addresses, sizes, low, high): numbers seen to be fixed are literals
        k1(t[11], t[12], t[14], t[15], 0, t[15])              # ... the others are read from the table

`table` is an int64 array: a header, one slot per buffer address, one per number that varies with the input shapes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

from openinfer.codegen.lowering import Lowered
from openinfer.ops._base import Operand, Packed, Scratch

HEADER = 8
ENTRY, CONTROL, THREADS = 0, 1, 2

Buffer = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class StepShape:
    """What of a step is compiled in: the kernel, its statics, which buffers it takes."""

    kernel: str
    statics: tuple[tuple[str, Hashable], ...]
    buffers: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """Everything about a lowered graph except its numbers. Equal skeletons can share one program."""

    steps: tuple[StepShape, ...]
    buffers: tuple[Buffer, ...]


Numbers = tuple[tuple[int, ...], ...]
Literals = tuple[tuple[int | None, ...], ...]


def skeleton(lowered: Lowered) -> tuple[Skeleton, Numbers]:
    """The skeleton and, per step, its numbers: the sizes, then the number of blocks."""
    written = {("value", operand.name) for step in lowered.steps for i in step.writes if not isinstance(operand := step.operands[i], (Packed, Scratch))}
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
        StepShape(step.kernel, tuple(sorted(step.statics.items())), tuple(position(operand) for operand in step.operands)) for step in lowered.steps
    )
    return Skeleton(steps, tuple(positions)), tuple((*step.sizes, step.blocks) for step in lowered.steps)


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


def source(shape: Skeleton, fixed: Literals) -> tuple[str, list[tuple[str, dict[str, Hashable]]]]:
    """The program's Python source and the kernels it calls as k0, k1, …"""
    kernels: dict[tuple[str, tuple[tuple[str, Hashable], ...]], int] = {}
    slot = HEADER + len(shape.buffers)
    lines = ["def program(table, thread, threads):", "    t = i64(table)"]
    for step, kept in zip(shape.steps, fixed, strict=True):
        index = kernels.setdefault((step.kernel, step.statics), len(kernels))
        numbers = []
        for value in kept:
            numbers.append(str(value) if value is not None else f"t[{slot}]")
            slot += value is None
        arguments = [f"t[{HEADER + buffer}]" for buffer in step.buffers] + numbers[:-1] + ["0", numbers[-1]]
        lines.append(f"    k{index}({', '.join(arguments)})")
    return "\n".join(lines) + "\n", [(kernel, dict(statics)) for kernel, statics in kernels]
