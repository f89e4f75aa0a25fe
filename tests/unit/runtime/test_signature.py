"""Values that are no arrays are converted where nothing is lost, and refused in one line where something would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from openinfer.errors import InputError
from openinfer.ir.graph import Signature
from openinfer.runtime.conversion import Conversions
from openinfer.runtime.signature import check


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", [1.9]),
        ("int64", [1.0]),
        ("int64", [2**70]),
        ("int64", [2**63]),
        ("int8", [128]),
        ("uint8", [-1]),
        ("bool", [2]),
        ("int64", ["1"]),
        ("float32", ["text"]),
        ("float32", [1e300]),
        ("float32", [[1.0], [1.0, 2.0]]),
        ("float32", [1j]),
        ("float32", [None]),
        ("float32", [2**70]),
        ("quaternion", [1.0]),
        ("string", [["a"], ["b", "c"]]),
    ],
)
def test_a_lossy_conversion_is_refused_in_one_line(dtype: str, value: Any) -> None:
    with pytest.raises(InputError, match="input 'x'") as error:
        check({"x": value}, [Signature("x", dtype, ("n",))], Conversions(1e-3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int64", [1, -2]),
        ("int8", [127, -128]),
        ("uint64", [2**64 - 1]),
        ("float32", [1, 2]),
        ("float32", [0.1]),
        ("float32", [float("inf"), float("nan")]),
        ("float64", (True, False)),
        ("int32", [True]),
        ("int64", []),
        ("bool", [True]),
    ],
)
def test_what_fits_is_converted(dtype: str, value: Any) -> None:
    array = check({"x": value}, [Signature("x", dtype, ("n",))], Conversions(1e-3))["x"]
    assert array.dtype == dtype
    assert np.array_equal(array, np.array(value, dtype), equal_nan=dtype.startswith("float"))


def test_scalars_are_converted_too() -> None:
    assert check({"x": 3}, [Signature("x", "int16", ())], Conversions(1e-3))["x"].dtype == np.int16
    with pytest.raises(InputError, match="float64 is not taken for int16"):
        check({"x": np.float64(3.5)}, [Signature("x", "int16", ())], Conversions(1e-3))
