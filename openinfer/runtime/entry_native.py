"""The native calls and the pool's code, linked once a process, and Python functions made of them."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from openinfer.codegen import object_cache
from openinfer.codegen.loader import Library, compile_ir, load_object
from openinfer.errors import CompiledCodeError, IndexRangeError
from openinfer.fork_lock import ForkLock
from openinfer.runtime import entry_ir, entry_layout

_METH_NOARGS, _METH_O = 0x0004, 0x0008
_FLAGS = {
    "openinfer_call": _METH_NOARGS,
    "openinfer_call_released": _METH_NOARGS,
    "openinfer_call_timed": _METH_NOARGS,
    "openinfer_call_stamped": _METH_NOARGS,
    "openinfer_run": _METH_O,
    "openinfer_address": _METH_O,
}
_EXPORTS = (
    *_FLAGS,
    "openinfer_worker",
    "openinfer_section",
    "openinfer_stop",
    "openinfer_wake",
    "openinfer_barrier",
    "openinfer_hand",
    "openinfer_serve",
)


class _MethodDef(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


# A cached function that runs twice at once keeps one result and drops the other, and code that is dropped is unmapped: hence the lock.
_lock = ForkLock()


def library() -> Library:
    """The linked code, for the life of the process. Compiling takes about 0.1 s, once a machine: the object is cached."""
    with _lock.held():
        return _library()


@functools.cache
def _library() -> Library:
    python = {name: _address(name) for name in entry_ir.PYTHON_FUNCTIONS}
    objects: dict[str, object] = {"none": None, "dict_type": dict, "array_type": np.ndarray, "type_error": TypeError}
    objects |= {"failure": CompiledCodeError, "index_failure": IndexRangeError}
    imports = {**python, **{name: id(value) for name, value in objects.items()}, "new_array": entry_layout.new_array_address()}
    # Where arrays cannot be read natively, nothing calls `new_array`; it still has to link.
    imports["new_array"] = imports["new_array"] or python["PyErr_Clear"]
    text = entry_ir.text()
    name = object_cache.key(text, ())
    stored = object_cache.load(name)
    if stored is not None:
        return load_object(stored[1], _EXPORTS, imports)
    elf = compile_ir(text)
    object_cache.store(name, "openinfer_call", elf)
    return load_object(elf, _EXPORTS, imports)


def function(symbol: str, address: int, owner: object) -> Any:
    """A builtin over one of the native calls, for a table or descriptor at `address`. It keeps `owner` alive."""
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    with _lock.held():
        method = _method(symbol)
    return new(ctypes.addressof(method), (address, owner), None)


@functools.cache
def _method(symbol: str) -> _MethodDef:
    # Cached for ever: builtins point to it.
    return _MethodDef(symbol.encode(), library()[symbol], _FLAGS[symbol], None)


def _address(name: str) -> int:
    return int(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0)
