"""Broadcasting as loops: adjacent dimensions merge where every operand treats them alike, the last group becomes the inner loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from openinfer.ops._base import NotCompiled


@dataclasses.dataclass(frozen=True)
class Loops:
    """`inner_size` elements per row; per operand, whether it advances along the row; outer sizes, and outer strides per operand, in
    elements.
    """

    inner_size: int
    inner: tuple[int, ...]
    outer: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def loops(shape: Sequence[int], operands: Sequence[Sequence[int]], constant: Sequence[bool]) -> Loops:
    """The loop nest that writes a contiguous tensor of `shape` from contiguous operands of shapes that broadcast to it.

    A dimension of size 1 counts as broadcast in a constant and, in the other operands, only where the output is larger: so a batch of one
    gives the same loops as a larger batch. Raises `NotCompiled` for an operand that does not broadcast to `shape`: the loops would leave
    its memory.
    """
    rank = len(shape)
    padded = [(1,) * (rank - len(operand)) + tuple(operand) for operand in operands]
    for operand in padded:
        if len(operand) != rank or any(own not in (1, size) for own, size in zip(operand, shape, strict=True)):
            raise NotCompiled(f"an operand of shape {operand} does not broadcast to {tuple(shape)}")
    missing = [rank - len(operand) for operand in operands]
    patterns = [
        tuple(axis >= missing[i] and not (padded[i][axis] == 1 and (constant[i] or shape[axis] != 1)) for i in range(len(operands)))
        for axis in range(rank)
    ]
    groups: list[tuple[int, tuple[bool, ...]]] = []
    for size, pattern in zip(shape, patterns, strict=True):
        if groups and groups[-1][1] == pattern:
            groups[-1] = groups[-1][0] * size, pattern
        else:
            groups.append((size, pattern))
    if not groups:
        return Loops(1, (1,) * len(operands), (), ((),) * len(operands))
    inner_size, inner = groups[-1]
    strides = []
    for i in range(len(operands)):
        step = inner_size if inner[i] else 1
        row: list[int] = []
        for size, pattern in reversed(groups[:-1]):
            row.append(step if pattern[i] else 0)
            step *= size if pattern[i] else 1
        strides.append(tuple(reversed(row)))
    return Loops(inner_size, tuple(int(flag) for flag in inner), tuple(size for size, _ in groups[:-1]), tuple(strides))
