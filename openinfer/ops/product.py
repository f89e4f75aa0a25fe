"""The product of operands that only the call knows: B packed into scratch once per matrix, then the `product` kernel."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array
from openinfer.ops._base import Alias, Operand, Packed, Scratch, Step, Target, Value
from openinfer.ops.broadcast import loops
from openinfer.ops.dense_packing import pack_panels
from openinfer.ops.dense_tile import FLOPS_PER_NS, Epilogue, tile_shape

ELEMENT_NS, CALL_NS = 0.3, 10.0


@dataclasses.dataclass(frozen=True)
class Matrices:
    """The matrices of one operand: `batch` of them in C order; element (row, column) lies at row · step_row + column · step_column."""

    value: Value
    batch: tuple[int, ...]
    step_row: int
    step_column: int


def multiply(
    name: str, a: Matrices, b: Matrices, sizes: tuple[int, int, int], output: Operand, epilogue: Epilogue, target: Target
) -> list[Step | Alias]:
    """A[batch, m, k] · B[batch, k, n] for `sizes` (m, n, k), the batches broadcast against each other."""
    m, n, k = sizes
    dtype = a.value.dtype
    batch = np.broadcast_shapes(a.batch, b.batch)
    rows, vectors = tile_shape(n, dtype, target, fixed=b.value.constant)
    width = vectors * target.machine.lanes(dtype)
    panels, matrices = -(-n // width), math.prod(b.batch)
    steps: list[Step | Alias] = []
    packed: Operand
    data = b.value.data
    if b.value.constant and data is not None:
        content = np.lib.stride_tricks.as_strided(
            data := np.ascontiguousarray(data),
            (matrices, k, n),
            tuple(step * data.itemsize for step in (k * n, b.step_row, b.step_column)),
            writeable=False,
        )

        def pack() -> Array:
            return np.stack([pack_panels(matrix, width) for matrix in content])

        packed = Packed(f"{name}:{width}:matrices", pack)
    else:
        packed = Scratch("panels", max(1, matrices * panels * k * width * np.dtype(dtype).itemsize))
        count = matrices * panels
        cost = CALL_NS + ELEMENT_NS * count * k * width
        given = (k, n, b.step_row, b.step_column)
        steps.append(Step("pack_matrix", {"dtype": dtype, "width": width}, (b.value, packed), given, count, cost, (1,)))
    nest = loops(batch, [a.batch, b.batch], [a.value.constant, b.value.constant])
    dims = (*nest.outer, nest.inner_size)
    strides: list[Sequence[int]] = [(*outer, inner) for outer, inner in zip(nest.strides, nest.inner, strict=True)]
    statics = {"dtype": dtype, "rows": rows, "vectors": vectors, "outer": len(dims), **epilogue.statics}
    numbers = (m, n, k, a.step_row, a.step_column, *dims, *strides[0], *strides[1])
    blocks = math.prod(batch) * panels * -(-m // rows)
    flops = 2.0 * math.prod(batch) * m * n * k
    steps.append(Step("product", statics, (a.value, packed, output), numbers, blocks, CALL_NS + flops / FLOPS_PER_NS[dtype], (2,)))
    return steps
