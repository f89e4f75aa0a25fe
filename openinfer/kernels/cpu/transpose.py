"""A square of vectors, transposed in registers."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from openinfer.kernels.cpu.vectors import I32, VectorType

PIECE_BYTES = 16  # shuffles within 16 bytes, and of whole 16-byte pieces, are single cheap instructions


def transpose(b: Any, vector: VectorType, rows: list[Any]) -> list[Any]:
    """`lanes` vectors whose lane r is lane l of `rows[r]`, for l = 0, 1, …; missing rows leave their lanes undefined."""
    undefined = ir.Constant(vector.type, ir.Undefined)
    square = [*rows, *[undefined] * (vector.lanes - len(rows))]
    inner = PIECE_BYTES // vector.item_bytes
    pieces = vector.lanes // inner
    columns: list[list[Any]] = []  # columns[g][c]: in piece p, column inner · p + c of the rows of group g
    for g in range(pieces):
        group = square[g * inner : (g + 1) * inner]
        width = 1
        while width < inner:
            group = _merge(b, vector, group, width, inner)
            width *= 2
        columns.append(group)
    result: list[Any] = [None] * vector.lanes
    for c in range(inner):
        turned = _turn_pieces(b, vector, [columns[g][c] for g in range(pieces)], inner)
        for p in range(pieces):
            result[p * inner + c] = turned[p]
    return result


def _merge(b: Any, vector: VectorType, group: list[Any], width: int, inner: int) -> list[Any]:
    """One step of the transposition within pieces: runs of `width` elements of two vectors are interleaved."""
    half = inner // 2
    halves: list[Any] = []
    for first in (i for i in range(inner) if not i & width):
        for part in range(2):
            mask: list[int] = []
            for piece in range(vector.lanes // inner):
                for start in range(0, half, width):
                    at = piece * inner + part * half + start
                    mask += [*range(at, at + width), *range(vector.lanes + at, vector.lanes + at + width)]
            halves.append(_shuffle(b, group[first], group[first + width], mask))
    return halves


def _turn_pieces(b: Any, vector: VectorType, vectors: list[Any], inner: int) -> list[Any]:
    """A square of pieces, transposed: result p is piece p of every vector, in order."""
    if len(vectors) == 1:
        return vectors

    def pick(first: Any, second: Any, pieces: list[tuple[int, int]]) -> Any:
        mask = [side * vector.lanes + piece * inner + k for side, piece in pieces for k in range(inner)]
        return _shuffle(b, first, second, mask)

    if len(vectors) == 2:
        return [pick(vectors[0], vectors[1], [(0, p), (1, p)]) for p in (0, 1)]
    even = [pick(vectors[i], vectors[i + 1], [(0, 0), (0, 2), (1, 0), (1, 2)]) for i in (0, 2)]
    odd = [pick(vectors[i], vectors[i + 1], [(0, 1), (0, 3), (1, 1), (1, 3)]) for i in (0, 2)]
    low, high = [(0, 0), (0, 2), (1, 0), (1, 2)], [(0, 1), (0, 3), (1, 1), (1, 3)]
    return [pick(pair[0], pair[1], pieces) for pieces in (low, high) for pair in (even, odd)]


def _shuffle(b: Any, first: Any, second: Any, mask: list[int]) -> Any:
    return b.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, len(mask)), mask))
