"""LLVM IR of the calls from Python: C functions that take `PyObject *` and end in `program(table, thread, threads)`.

    call(self):         table = self[0]; program(table, 0, 1) or a pool section; None
    call_released(self): the same without the GIL
    call_stamped(self): the same, for self[0] = five words: the table, whether to release the GIL, calls so far, rows there are, their
                        address; notes begin and end of the program, in ns, in the next row
    call_timed(self):   the same, for self[0] = three words: the table, then when the program ended and when the GIL was back, in ns
    address(self, array): int
    run(self, inputs):  in `entry_run_ir`

NumPy's `PyArrayObject` and `PyArray_Descr` are read at fixed offsets; `entry_layout` proves them first, or these functions are not used.
"""

from __future__ import annotations

import string

from openinfer.errors import IndexRangeError
from openinfer.kernels.cpu import control_block
from openinfer.runtime import entry_run_ir, native_worker_ir, pool_ir

# Offsets in bytes, 64-bit CPython with the GIL and NumPy 2.
OBJECT_TYPE = 8
ARRAY_DATA, ARRAY_NDIM, ARRAY_DIMS, ARRAY_STRIDES, ARRAY_DESCR, ARRAY_FLAGS = 16, 24, 32, 40, 56, 64
DESCR_BYTEORDER, DESCR_NUMBER = 26, 28
INDEX_STATUS = 1  # a program's status where indices lay outside their axis: Numba's for an exception that is raised
FIT = 0x1 | 0x100  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
PYTHON_FUNCTIONS = (
    "Py_IncRef",
    "Py_DecRef",
    "PyTuple_GetItem",
    "PyLong_AsSize_t",
    "PyLong_FromSize_t",
    "PyDict_New",
    "PyDict_Size",
    "PyDict_SetItem",
    "PyDict_GetItemWithError",
    "PyErr_Clear",
    "PyErr_SetString",
    "PyObject_CallNoArgs",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
)

_TEXT = """
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyTuple_GetItem(ptr, i64)
declare i64 @PyLong_AsSize_t(ptr)
declare ptr @PyLong_FromSize_t(i64)
declare ptr @PyDict_New()
declare i64 @PyDict_Size(ptr)
declare i32 @PyDict_SetItem(ptr, ptr, ptr)
declare ptr @PyDict_GetItemWithError(ptr, ptr)
declare void @PyErr_Clear()
declare void @PyErr_SetString(ptr, ptr)
declare ptr @PyObject_CallNoArgs(ptr)
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @new_array(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
@none = external global i8
@dict_type = external global i8
@array_type = external global i8
@failure = external global i8
@index_failure = external global i8
@type_error = external global i8
@message = internal constant [51 x i8] c"the compiled program reported a failure of its own\\00"
@index_message = internal constant [$INDEX_LENGTH x i8] c"$INDEX_TEXT\\00"
@not_an_array = internal constant [25 x i8] c"expected a numpy.ndarray\\00"

define internal ptr @opened(ptr %self) alwaysinline {
  %first = call ptr @PyTuple_GetItem(ptr %self, i64 0)
  %address = call i64 @PyLong_AsSize_t(ptr %first)
  %pointer = inttoptr i64 %address to ptr
  ret ptr %pointer
}

define internal ptr @pooled(ptr %table) alwaysinline {
  %control.at = getelementptr i64, ptr %table, i64 $TABLE_CONTROL
  %threads.at = getelementptr i64, ptr %table, i64 $TABLE_THREADS
  %control = load ptr, ptr %control.at
  %threads = load i64, ptr %threads.at
  %many = icmp sgt i64 %threads, 1
  %chosen = select i1 %many, ptr %control, ptr null
  ret ptr %chosen
}

; Starts the pool where it is not running (first use, or a forked child). Needs the GIL. False with an exception set.
define internal i1 @started(ptr %table) alwaysinline {
  %control = call ptr @pooled(ptr %table)
  %single = icmp eq ptr %control, null
  br i1 %single, label %yes, label %look
look:
  %ready.at = getelementptr i64, ptr %control, i64 $READY
  %ready = load atomic i64, ptr %ready.at acquire, align 8
  %running = icmp ne i64 %ready, 0
  br i1 %running, label %yes, label %idle
idle:
  %start.at = getelementptr i64, ptr %control, i64 $START
  %start = load ptr, ptr %start.at
  %closed = icmp eq ptr %start, null
  br i1 %closed, label %yes, label %call
call:
  %answer = call ptr @PyObject_CallNoArgs(ptr %start)
  call void @Py_DecRef(ptr %answer)
  %good = icmp ne ptr %answer, null
  ret i1 %good
yes:
  ret i1 true
}

define internal i32 @execute(ptr %table) {
  %program.at = getelementptr i64, ptr %table, i64 $TABLE_PROGRAM
  %program = load ptr, ptr %program.at
  %word = ptrtoint ptr %table to i64
  %control = call ptr @pooled(ptr %table)
  %single = icmp eq ptr %control, null
  br i1 %single, label %alone, label %together
alone:
  %one = call i32 @share(ptr %program, i64 %word, i64 0, i64 1)
  ret i32 %one
together:
  %all = call i32 @openinfer_section(ptr %control, ptr %program, i64 %word)
  ret i32 %all
}

define internal ptr @answer_none() alwaysinline {
  call void @Py_IncRef(ptr @none)
  ret ptr @none
}

; Sets the exception that a status other than 0 means.
define internal void @report(i32 %status) noinline {
  %indices = icmp eq i32 %status, $INDEX_STATUS
  %kind = select i1 %indices, ptr @index_failure, ptr @failure
  %text = select i1 %indices, ptr @index_message, ptr @message
  call void @PyErr_SetString(ptr %kind, ptr %text)
  ret void
}

define internal ptr @conclude(i32 %status) alwaysinline {
  %good = icmp eq i32 %status, 0
  br i1 %good, label %fine, label %bad
fine:
  %none = call ptr @answer_none()
  ret ptr %none
bad:
  call void @report(i32 %status)
  ret ptr null
}

define ptr @openinfer_call(ptr %self, ptr %unused) {
  %table = call ptr @opened(ptr %self)
  %ready = call i1 @started(ptr %table)
  br i1 %ready, label %go, label %fail
go:
  %status = call i32 @execute(ptr %table)
  %answer = call ptr @conclude(i32 %status)
  ret ptr %answer
fail:
  ret ptr null
}

define ptr @openinfer_call_released(ptr %self, ptr %unused) {
  %table = call ptr @opened(ptr %self)
  %ready = call i1 @started(ptr %table)
  br i1 %ready, label %go, label %fail
go:
  %state = call ptr @PyEval_SaveThread()
  %status = call i32 @execute(ptr %table)
  call void @PyEval_RestoreThread(ptr %state)
  %answer = call ptr @conclude(i32 %status)
  ret ptr %answer
fail:
  ret ptr null
}

define ptr @openinfer_call_timed(ptr %self, ptr %unused) {
  %words = call ptr @opened(ptr %self)
  %table = load ptr, ptr %words
  %ready = call i1 @started(ptr %table)
  br i1 %ready, label %go, label %fail
go:
  %state = call ptr @PyEval_SaveThread()
  %status = call i32 @execute(ptr %table)
  %ended = call i64 @now()
  call void @PyEval_RestoreThread(ptr %state)
  %back = call i64 @now()
  %ended.at = getelementptr i64, ptr %words, i64 1
  %back.at = getelementptr i64, ptr %words, i64 2
  store i64 %ended, ptr %ended.at
  store i64 %back, ptr %back.at
  %answer = call ptr @conclude(i32 %status)
  ret ptr %answer
fail:
  ret ptr null
}

define ptr @openinfer_call_stamped(ptr %self, ptr %unused) {
  %words = call ptr @opened(ptr %self)
  %table = load ptr, ptr %words
  %ready = call i1 @started(ptr %table)
  br i1 %ready, label %go, label %fail
go:
  %release.at = getelementptr i64, ptr %words, i64 1
  %release = load i64, ptr %release.at
  %keeps = icmp eq i64 %release, 0
  %begin = call i64 @now()
  br i1 %keeps, label %held, label %free
held:
  %status.held = call i32 @execute(ptr %table)
  %end.held = call i64 @now()
  br label %note
free:
  %state = call ptr @PyEval_SaveThread()
  %status.free = call i32 @execute(ptr %table)
  %end.free = call i64 @now()
  call void @PyEval_RestoreThread(ptr %state)
  br label %note
note:
  %status = phi i32 [%status.held, %held], [%status.free, %free]
  %end = phi i64 [%end.held, %held], [%end.free, %free]
  %count.at = getelementptr i64, ptr %words, i64 2
  %room.at = getelementptr i64, ptr %words, i64 3
  %rows.at = getelementptr i64, ptr %words, i64 4
  %count = load i64, ptr %count.at
  %room = load i64, ptr %room.at
  %rows = load ptr, ptr %rows.at
  %row = urem i64 %count, %room
  %begin.at = getelementptr [2 x i64], ptr %rows, i64 %row
  %end.at = getelementptr [2 x i64], ptr %rows, i64 %row, i64 1
  store i64 %begin, ptr %begin.at
  store i64 %end, ptr %end.at
  %next = add i64 %count, 1
  store i64 %next, ptr %count.at
  %answer = call ptr @conclude(i32 %status)
  ret ptr %answer
fail:
  ret ptr null
}

define internal i1 @is_array(ptr %object) alwaysinline {
  %type.at = getelementptr i8, ptr %object, i64 $OBJECT_TYPE
  %type = load ptr, ptr %type.at
  %same = icmp eq ptr %type, @array_type
  ret i1 %same
}

define internal ptr @data_of(ptr %array) alwaysinline {
  %data.at = getelementptr i8, ptr %array, i64 $ARRAY_DATA
  %data = load ptr, ptr %data.at
  ret ptr %data
}

define ptr @openinfer_address(ptr %self, ptr %array) {
  %plain = call i1 @is_array(ptr %array)
  br i1 %plain, label %good, label %bad
good:
  %data = call ptr @data_of(ptr %array)
  %word = ptrtoint ptr %data to i64
  %answer = call ptr @PyLong_FromSize_t(i64 %word)
  ret ptr %answer
bad:
  call void @PyErr_SetString(ptr @type_error, ptr @not_an_array)
  ret ptr null
}
"""


def text() -> str:
    """One module: the pool's functions, the calls, and the workers."""
    every = {**vars(control_block), **vars(entry_run_ir), **globals()}
    words: dict[str, object] = {name: value for name, value in every.items() if name.isupper() and isinstance(value, int)}
    words |= {"INDEX_LENGTH": len(IndexRangeError.MESSAGE) + 1, "INDEX_TEXT": IndexRangeError.MESSAGE}
    return pool_ir.text() + string.Template(_TEXT + entry_run_ir.TEMPLATE).substitute(words) + native_worker_ir.text()
