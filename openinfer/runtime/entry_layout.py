"""Do this interpreter and this NumPy lay their objects out as the native calls expect? Asked once, before the first fast call."""

from __future__ import annotations

import ctypes
import functools
import sys
import sysconfig

import numpy as np

from openinfer.runtime import entry_ir as at

_ABI_VERSION, _ARRAY_TYPE, _NEW_FROM_DESCR = 0, 2, 94  # places in NumPy's C API table, fixed by its ABI
_NUMPY_2 = 0x2000000


@functools.cache
def problem() -> str | None:
    """Why arrays must not be read natively here, or None where a probe of several arrays agrees in every field."""
    if sys.implementation.name != "cpython" or sys.maxsize < 2**63 - 1 or sys.byteorder != "little":
        return "not a 64-bit little-endian CPython"
    if sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "getobjects"):
        return "a free-threaded or tracing build of CPython"
    if np.ndarray.__basicsize__ < at.ARRAY_FLAGS + 4 or np.dtype.__basicsize__ < at.DESCR_NUMBER + 4:
        return "NumPy's objects are smaller than expected"
    if ctypes.CFUNCTYPE(ctypes.c_uint)(_api(_ABI_VERSION))() != _NUMPY_2 or _api(_ARRAY_TYPE) != id(np.ndarray):
        return "not NumPy 2's ABI"
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    read_only = np.zeros(3, np.uint8)
    read_only.flags.writeable = False
    unaligned = np.zeros(33, np.uint8)[1:].view(np.float64)
    probes = (
        matrix,
        matrix.T,
        matrix[:, 1:],
        matrix[::-1],
        np.zeros((), np.int64),
        np.zeros((2, 0, 5), np.bool_),
        read_only,
        unaligned,
        np.zeros(3, ">f4"),
        np.zeros((1, 2, 3), np.float64, order="F"),
        np.zeros(2, np.float16),
    )
    for array in probes:
        field = _mismatch(array)
        if field is not None:
            return f"NumPy keeps the {field} of an array elsewhere"
    return None


def new_array_address() -> int:
    """The address of `PyArray_NewFromDescr`, or 0 where NumPy has another ABI."""
    return _api(_NEW_FROM_DESCR) if problem() is None else 0


def _api(place: int) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(np._core._multiarray_umath._ARRAY_API, None)  # type: ignore[attr-defined]  # private, but the documented way in
    return int(ctypes.c_size_t.from_address(table + 8 * place).value)


def _mismatch(array: np.ndarray) -> str | None:
    """The first field that does not read as NumPy says."""
    where, descr, dims = id(array), id(array.dtype), _word(id(array) + at.ARRAY_DIMS)
    flags = ctypes.c_int.from_address(where + at.ARRAY_FLAGS).value
    claims = {
        "type": _word(where + at.OBJECT_TYPE) == id(np.ndarray),
        "data": _word(where + at.ARRAY_DATA) == array.ctypes.data,
        "rank": ctypes.c_int.from_address(where + at.ARRAY_NDIM).value == array.ndim,
        "dtype": _word(where + at.ARRAY_DESCR) == descr,
        "type number": ctypes.c_int.from_address(descr + at.DESCR_NUMBER).value == array.dtype.num,
        "byte order": ctypes.c_char.from_address(descr + at.DESCR_BYTEORDER).value == array.dtype.byteorder.encode(),
        "flags": flags & 0x507 == array.flags.num & 0x507,  # contiguity, alignment, writeability
    }
    for field, agrees in claims.items():
        if not agrees:
            return field
    if any(_word(dims + 8 * k) != size for k, size in enumerate(array.shape)):
        return "shape"
    strides = _word(where + at.ARRAY_STRIDES)
    if any(ctypes.c_ssize_t.from_address(strides + 8 * k).value != size for k, size in enumerate(array.strides)):
        return "strides"
    return None


def _word(address: int) -> int:
    return int(ctypes.c_size_t.from_address(address).value)
