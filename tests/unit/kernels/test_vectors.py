"""What the vector operations promise about NaN, infinities and equal operands."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import pytest
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.vectors import VectorType, i64, widest

pytestmark = pytest.mark.kernels
NUMBERS = (-np.inf, -1.5, -0.0, 0.0, 2.5, np.inf)


def run(vector: VectorType, name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The operation `name` on whole vectors."""

    @intrinsic
    def operation(typing_context: Any, x: Any, y: Any, z: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, y, z = (builder.inttoptr(address, ir.PointerType()) for address in args)
            found = getattr(vector, name)(builder, vector.load(builder, x, i64(0)), vector.load(builder, y, i64(0)))
            vector.store(builder, found, z, i64(0))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 3), emit

    @nb.njit
    def call(x, y, z):
        operation(x, y, z)

    out = np.empty_like(a)
    for at in range(0, len(a), vector.lanes):
        call(*(array.ctypes.data + at * array.itemsize for array in (a, b, out)))
    return out


def pairs(vector: VectorType, firsts: tuple[float, ...], seconds: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every pair, repeated to whole vectors."""
    every = np.array([(a, b) for a in firsts for b in seconds], vector.dtype)
    every = np.resize(every, (-(-len(every) // vector.lanes) * vector.lanes, 2))
    return np.ascontiguousarray(every[:, 0]), np.ascontiguousarray(every[:, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "meaning"), [("maximum", np.maximum), ("minimum", np.minimum)])
def test_an_extreme_is_nan_where_either_is(dtype, name, meaning):
    vector = widest(dtype)
    a, b = pairs(vector, (*NUMBERS, np.nan), (*NUMBERS, np.nan))
    found = run(vector, name, a, b)
    assert np.array_equal(found, meaning(a, b), equal_nan=True)
    equal = a == b
    assert (np.signbit(found) == np.signbit(a))[equal].all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "meaning"), [("at_least", np.maximum), ("at_most", np.minimum)])
def test_a_bound_leaves_nan(dtype, name, meaning):
    vector = widest(dtype)
    a, b = pairs(vector, (*NUMBERS, np.nan), NUMBERS)
    assert np.array_equal(run(vector, name, a, b), meaning(a, b), equal_nan=True)
