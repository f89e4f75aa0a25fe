"""LLVM IR of `Runner.run`, a part of the module in `entry_ir`: a dict of arrays in, a dict of fresh arrays out.

    run(self, inputs):  plain dict? plain arrays that fit? outputs = fresh arrays; lease a table; patch its slots; program; {name: output}
                        anything unexpected: None, before anything has happened

Python code may run in between (finalisers, a key's `__eq__`, `new_table`), and may call `run` again: so every input is held, and the table
is leased, patched and used with no Python code after the patching.
"""

from __future__ import annotations

# The descriptor of a runner, in int64 words.
FREE_COUNT = 0  # tables that no call uses now
FREE = 1  # address of an array of their addresses
GROW = 2  # borrowed PyObject*: called with nothing, makes one more table and returns its address
INPUTS = 3
OUTPUTS = 4
RELEASE = 5  # 1: without the GIL
BATCH_SLOT = 6  # table word that takes the run-time batch, or -1
BATCH_LIMIT = 7
INPUT_RECORDS = 8  # addresses
OUTPUT_RECORDS = 9
DESCRIPTOR_WORDS = 10
# A record describes one input or output.
RECORD_KEY = 0  # borrowed str
RECORD_TYPE = 1  # input: type number; output: borrowed dtype
RECORD_NDIM = 2
RECORD_SLOT = 3
RECORD_DIMS = 4  # address; -1 is the run-time batch
RECORD_WORDS = 5

MAX_PORTS = 64
MAX_DIMS = 64

TEMPLATE = """
; Does an object fit an input's record? Binds the batch at its first -1.
define internal i1 @fits(ptr %array, ptr %record, ptr %batch, i64 %limit) {
entry:
  %plain = call i1 @is_array(ptr %array)
  br i1 %plain, label %typed, label %no
typed:
  %descr.at = getelementptr i8, ptr %array, i64 $ARRAY_DESCR
  %descr = load ptr, ptr %descr.at
  %number.at = getelementptr i8, ptr %descr, i64 $DESCR_NUMBER
  %number.32 = load i32, ptr %number.at
  %number = sext i32 %number.32 to i64
  %wanted.at = getelementptr i64, ptr %record, i64 $RECORD_TYPE
  %wanted = load i64, ptr %wanted.at
  %same.type = icmp eq i64 %number, %wanted
  %order.at = getelementptr i8, ptr %descr, i64 $DESCR_BYTEORDER
  %order = load i8, ptr %order.at
  %readable = icmp ne i8 %order, 62  ; '>'
  %type.fits = and i1 %same.type, %readable
  %flags.at = getelementptr i8, ptr %array, i64 $ARRAY_FLAGS
  %flags = load i32, ptr %flags.at
  %flags.both = and i32 %flags, $FIT
  %flags.fit = icmp eq i32 %flags.both, $FIT
  %ndim.at = getelementptr i8, ptr %array, i64 $ARRAY_NDIM
  %ndim.32 = load i32, ptr %ndim.at
  %ndim = sext i32 %ndim.32 to i64
  %ndim.wanted.at = getelementptr i64, ptr %record, i64 $RECORD_NDIM
  %ndim.wanted = load i64, ptr %ndim.wanted.at
  %ndim.fits = icmp eq i64 %ndim, %ndim.wanted
  %two = and i1 %type.fits, %flags.fit
  %three = and i1 %two, %ndim.fits
  br i1 %three, label %shaped, label %no
shaped:
  %dims.at = getelementptr i8, ptr %array, i64 $ARRAY_DIMS
  %dims = load ptr, ptr %dims.at
  %dims.wanted.at = getelementptr i64, ptr %record, i64 $RECORD_DIMS
  %dims.wanted = load ptr, ptr %dims.wanted.at
  br label %loop
loop:
  %j = phi i64 [ 0, %shaped ], [ %j.next, %next ]
  %over = icmp sge i64 %j, %ndim
  br i1 %over, label %yes, label %dim
dim:
  %have.at = getelementptr i64, ptr %dims, i64 %j
  %have = load i64, ptr %have.at
  %want.at = getelementptr i64, ptr %dims.wanted, i64 %j
  %want = load i64, ptr %want.at
  %equal = icmp eq i64 %have, %want
  br i1 %equal, label %next, label %free
free:
  %symbolic = icmp eq i64 %want, -1
  br i1 %symbolic, label %bind, label %no
bind:
  %bound = load i64, ptr %batch
  %unbound = icmp eq i64 %bound, -1
  br i1 %unbound, label %first, label %again
first:
  %low = icmp sge i64 %have, 1
  %high = icmp sle i64 %have, %limit
  %within = and i1 %low, %high
  store i64 %have, ptr %batch
  br i1 %within, label %next, label %no
again:
  %agrees = icmp eq i64 %have, %bound
  br i1 %agrees, label %next, label %no
next:
  %j.next = add i64 %j, 1
  br label %loop
yes:
  ret i1 true
no:
  ret i1 false
}

; A fresh array for an output's record, or null with an exception set.
define internal ptr @fresh(ptr %record, i64 %batch) {
entry:
  %dims = alloca [$MAX_DIMS x i64]
  %descr.at = getelementptr i64, ptr %record, i64 $RECORD_TYPE
  %descr = load ptr, ptr %descr.at
  %ndim.at = getelementptr i64, ptr %record, i64 $RECORD_NDIM
  %ndim = load i64, ptr %ndim.at
  %wanted.at = getelementptr i64, ptr %record, i64 $RECORD_DIMS
  %wanted = load ptr, ptr %wanted.at
  br label %loop
loop:
  %j = phi i64 [ 0, %entry ], [ %j.next, %dim ]
  %over = icmp sge i64 %j, %ndim
  br i1 %over, label %make, label %dim
dim:
  %want.at = getelementptr i64, ptr %wanted, i64 %j
  %want = load i64, ptr %want.at
  %symbolic = icmp eq i64 %want, -1
  %size = select i1 %symbolic, i64 %batch, i64 %want
  %size.at = getelementptr i64, ptr %dims, i64 %j
  store i64 %size, ptr %size.at
  %j.next = add i64 %j, 1
  br label %loop
make:
  call void @Py_IncRef(ptr %descr)
  %ndim.32 = trunc i64 %ndim to i32
  %array = call ptr @new_array(ptr @array_type, ptr %descr, i32 %ndim.32, ptr %dims, ptr null, ptr null, i32 0, ptr null)
  ret ptr %array
}

define internal void @drop(ptr %held, i64 %count) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %one ]
  %over = icmp sge i64 %i, %count
  br i1 %over, label %done, label %one
one:
  %at = getelementptr ptr, ptr %held, i64 %i
  %object = load ptr, ptr %at
  call void @Py_DecRef(ptr %object)
  %i.next = add i64 %i, 1
  br label %loop
done:
  ret void
}

; Store the data address of `count` arrays into the table, at their records' slots.
define internal void @patch(ptr %table, ptr %arrays, ptr %records, i64 %count) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %one ]
  %over = icmp sge i64 %i, %count
  br i1 %over, label %done, label %one
one:
  %array.at = getelementptr ptr, ptr %arrays, i64 %i
  %array = load ptr, ptr %array.at
  %data = call ptr @data_of(ptr %array)
  %skip = mul i64 %i, $RECORD_WORDS
  %record = getelementptr i64, ptr %records, i64 %skip
  %slot.at = getelementptr i64, ptr %record, i64 $RECORD_SLOT
  %slot = load i64, ptr %slot.at
  %word.at = getelementptr i64, ptr %table, i64 %slot
  store ptr %data, ptr %word.at
  %i.next = add i64 %i, 1
  br label %loop
done:
  ret void
}

define ptr @openinfer_run(ptr %self, ptr %inputs) {
entry:
  %held = alloca [$MAX_PORTS x ptr]
  %made = alloca [$MAX_PORTS x ptr]
  %batch.at = alloca i64
  store i64 -1, ptr %batch.at
  %d = call ptr @opened(ptr %self)
  %in.at = getelementptr i64, ptr %d, i64 $INPUTS
  %in = load i64, ptr %in.at
  %out.at = getelementptr i64, ptr %d, i64 $OUTPUTS
  %out = load i64, ptr %out.at
  %in.records.at = getelementptr i64, ptr %d, i64 $INPUT_RECORDS
  %in.records = load ptr, ptr %in.records.at
  %out.records.at = getelementptr i64, ptr %d, i64 $OUTPUT_RECORDS
  %out.records = load ptr, ptr %out.records.at
  %limit.at = getelementptr i64, ptr %d, i64 $BATCH_LIMIT
  %limit = load i64, ptr %limit.at
  %type.at = getelementptr i8, ptr %inputs, i64 $OBJECT_TYPE
  %type = load ptr, ptr %type.at
  %is.dict = icmp eq ptr %type, @dict_type
  br i1 %is.dict, label %counted, label %slow.early
counted:
  %size = call i64 @PyDict_Size(ptr %inputs)
  %size.fits = icmp eq i64 %size, %in
  br i1 %size.fits, label %fetch, label %slow.early
slow.early:
  %none.early = call ptr @answer_none()
  ret ptr %none.early

; Every input is held from here on: finalisers may change the dict while outputs are made.
fetch:
  %i = phi i64 [ 0, %counted ], [ %i.next, %fitting ]
  %fetched = icmp sge i64 %i, %in
  br i1 %fetched, label %open, label %key
key:
  %skip = mul i64 %i, $RECORD_WORDS
  %record = getelementptr i64, ptr %in.records, i64 %skip
  %name = load ptr, ptr %record
  %array = call ptr @PyDict_GetItemWithError(ptr %inputs, ptr %name)
  %missing = icmp eq ptr %array, null
  br i1 %missing, label %absent, label %hold
absent:
  call void @PyErr_Clear()
  br label %slow
hold:
  call void @Py_IncRef(ptr %array)
  %held.at = getelementptr ptr, ptr %held, i64 %i
  store ptr %array, ptr %held.at
  %i.next = add i64 %i, 1
  %fit = call i1 @fits(ptr %array, ptr %record, ptr %batch.at, i64 %limit)
  br i1 %fit, label %fitting, label %slow
fitting:
  br label %fetch
slow:
  %count = phi i64 [ %i, %absent ], [ %i.next, %hold ]
  call void @drop(ptr %held, i64 %count)
  %none.late = call ptr @answer_none()
  ret ptr %none.late

open:
  %batch = load i64, ptr %batch.at
  %result = call ptr @PyDict_New()
  %no.result = icmp eq ptr %result, null
  br i1 %no.result, label %fail, label %make
make:
  %o = phi i64 [ 0, %open ], [ %o.next, %kept ]
  %complete = icmp sge i64 %o, %out
  br i1 %complete, label %lease, label %output
output:
  %out.skip = mul i64 %o, $RECORD_WORDS
  %out.record = getelementptr i64, ptr %out.records, i64 %out.skip
  %new = call ptr @fresh(ptr %out.record, i64 %batch)
  %no.new = icmp eq ptr %new, null
  br i1 %no.new, label %fail, label %keep
keep:
  %out.name = load ptr, ptr %out.record
  %kept.status = call i32 @PyDict_SetItem(ptr %result, ptr %out.name, ptr %new)
  call void @Py_DecRef(ptr %new)
  %made.at = getelementptr ptr, ptr %made, i64 %o
  store ptr %new, ptr %made.at
  %o.next = add i64 %o, 1
  %is.kept = icmp eq i32 %kept.status, 0
  br i1 %is.kept, label %kept, label %fail
kept:
  br label %make
fail:
  call void @Py_DecRef(ptr %result)
  call void @drop(ptr %held, i64 %in)
  ret ptr null

lease:
  %free.count.at = getelementptr i64, ptr %d, i64 $FREE_COUNT
  %free.at = getelementptr i64, ptr %d, i64 $FREE
  %free.count = load i64, ptr %free.count.at
  %none.free = icmp eq i64 %free.count, 0
  br i1 %none.free, label %grow, label %pop
pop:
  %free.less = sub i64 %free.count, 1
  store i64 %free.less, ptr %free.count.at
  %free = load ptr, ptr %free.at
  %popped.at = getelementptr ptr, ptr %free, i64 %free.less
  %popped = load ptr, ptr %popped.at
  br label %leased
grow:
  %grow.at = getelementptr i64, ptr %d, i64 $GROW
  %grow.call = load ptr, ptr %grow.at
  %grown.object = call ptr @PyObject_CallNoArgs(ptr %grow.call)
  %no.table = icmp eq ptr %grown.object, null
  br i1 %no.table, label %fail, label %unpack
unpack:
  %grown.word = call i64 @PyLong_AsSize_t(ptr %grown.object)
  call void @Py_DecRef(ptr %grown.object)
  %grown = inttoptr i64 %grown.word to ptr
  br label %leased
leased:
  %table = phi ptr [ %popped, %pop ], [ %grown, %unpack ]
  %ready = call i1 @started(ptr %table)
  br i1 %ready, label %patching, label %unready
unready:
  call void @give_back(ptr %d, ptr %table)
  br label %fail

patching:
  call void @patch(ptr %table, ptr %held, ptr %in.records, i64 %in)
  call void @patch(ptr %table, ptr %made, ptr %out.records, i64 %out)
  %batch.slot.at = getelementptr i64, ptr %d, i64 $BATCH_SLOT
  %batch.slot = load i64, ptr %batch.slot.at
  %has.batch = icmp sge i64 %batch.slot, 0
  br i1 %has.batch, label %batched, label %call
batched:
  %batch.word.at = getelementptr i64, ptr %table, i64 %batch.slot
  store i64 %batch, ptr %batch.word.at
  br label %call
call:
  %release.at = getelementptr i64, ptr %d, i64 $RELEASE
  %release = load i64, ptr %release.at
  %keeps = icmp eq i64 %release, 0
  br i1 %keeps, label %call.held, label %call.released
call.held:
  %status.held = call i32 @execute(ptr %table)
  br label %finish
call.released:
  %state = call ptr @PyEval_SaveThread()
  %status.released = call i32 @execute(ptr %table)
  call void @PyEval_RestoreThread(ptr %state)
  br label %finish
finish:
  %status = phi i32 [ %status.held, %call.held ], [ %status.released, %call.released ]
  call void @give_back(ptr %d, ptr %table)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %done, label %report
report:
  call void @report(i32 %status)
  br label %fail
done:
  call void @drop(ptr %held, i64 %in)
  ret ptr %result
}

define internal void @give_back(ptr %d, ptr %table) alwaysinline {
  %count.at = getelementptr i64, ptr %d, i64 $FREE_COUNT
  %free.at = getelementptr i64, ptr %d, i64 $FREE
  %count = load i64, ptr %count.at
  %free = load ptr, ptr %free.at
  %at = getelementptr ptr, ptr %free, i64 %count
  store ptr %table, ptr %at
  %more = add i64 %count, 1
  store i64 %more, ptr %count.at
  ret void
}
"""
