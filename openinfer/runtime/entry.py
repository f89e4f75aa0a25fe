"""Python callables that enter a compiled program directly: no dispatcher, no argument parsing.

    PyObject *call(PyObject *self, PyObject *unused) {      # METH_NOARGS; self is the table's address as an int
        int64_t table = PyLong_AsSsize_t(self);
        ((program *)((int64_t *)table)[0])(&result, &exception, table, 0, 1);
        Py_RETURN_NONE;
    }
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from openinfer.codegen.loader import Library, load_ir

METH_NOARGS = 0x0004

_TEXT = """
declare i64 @PyLong_AsSsize_t(ptr)
declare void @Py_IncRef(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)

define ptr @openinfer_call(ptr %self, ptr %unused) {{
  %result = alloca ptr
  %exception = alloca ptr
  %table = call i64 @PyLong_AsSsize_t(ptr %self)
  %slots = inttoptr i64 %table to ptr
  %entry = load ptr, ptr %slots
  %status = call i32 %entry(ptr %result, ptr %exception, i64 %table, i64 0, i64 1)
  call void @Py_IncRef(ptr inttoptr (i64 {none} to ptr))
  ret ptr inttoptr (i64 {none} to ptr)
}}

define ptr @openinfer_call_released(ptr %self, ptr %unused) {{
  %result = alloca ptr
  %exception = alloca ptr
  %table = call i64 @PyLong_AsSsize_t(ptr %self)
  %slots = inttoptr i64 %table to ptr
  %entry = load ptr, ptr %slots
  %state = call ptr @PyEval_SaveThread()
  %status = call i32 %entry(ptr %result, ptr %exception, i64 %table, i64 0, i64 1)
  call void @PyEval_RestoreThread(ptr %state)
  call void @Py_IncRef(ptr inttoptr (i64 {none} to ptr))
  ret ptr inttoptr (i64 {none} to ptr)
}}
"""


class _MethodDef(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


@functools.cache
def _native() -> tuple[Library, dict[bool, _MethodDef]]:
    library = load_ir(_TEXT.format(none=id(None)), ("openinfer_call", "openinfer_call_released"))
    return library, {
        False: _MethodDef(b"call", library["openinfer_call"], METH_NOARGS, b"Run the compiled program; holds the GIL."),
        True: _MethodDef(b"call", library["openinfer_call_released"], METH_NOARGS, b"Run the compiled program without the GIL."),
    }


def bound_call(table_address: int, release_gil: bool) -> Callable[[], None]:
    """A callable without arguments that runs the program of the table at `table_address`; the caller keeps the table alive."""
    _, methods = _native()
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    call: Callable[[], None] = make(ctypes.addressof(methods[release_gil]), table_address, None)
    return call
