"""LLVM IR of a worker that runs whole calls and never holds the GIL, over a control block of its own. See `native_worker`.

    hand(control, table):  slot[SUBMITTED % SLOTS].table = table; SUBMITTED += 1; wake
    serve(control):        wait for SUBMITTED; execute the slot's table, with the times around it; COMPLETED += 1; write(NOTIFY, 1)

One thread hands, one serves. A table of 0 ends the worker. `execute`, `wait`, `wake` and `now` are those of `entry_ir` and `pool_ir`.
"""

from __future__ import annotations

import string

# Words of the control block, int64. The two threads write to lines of their own.
SUBMITTED = 0
SPIN_NS = 1
SLEEPERS = 2
COMPLETED = 16
NOTIFY = 17  # file descriptor
FIRST_SLOT = 32
SLOTS = 4
SLOT_WORDS = 4
SLOT_TABLE, SLOT_BEGUN, SLOT_ENDED, SLOT_STATUS = 0, 1, 2, 3
CONTROL_WORDS = FIRST_SLOT + SLOTS * SLOT_WORDS

_TEXT = """
declare i64 @write(i32, ptr, i64)
@one = internal constant i64 1

define internal ptr @slot_of(ptr %control, i64 %number) alwaysinline {
  %index = urem i64 %number, $SLOTS
  %words = mul i64 %index, $SLOT_WORDS
  %from = add i64 %words, $FIRST_SLOT
  %slot = getelementptr i64, ptr %control, i64 %from
  ret ptr %slot
}

define void @openinfer_hand(ptr %control, ptr %table) {
  %submitted.at = getelementptr i64, ptr %control, i64 $SUBMITTED
  %sleepers.at = getelementptr i64, ptr %control, i64 $SLEEPERS
  %number = load i64, ptr %submitted.at
  %slot = call ptr @slot_of(ptr %control, i64 %number)
  store ptr %table, ptr %slot
  atomicrmw add ptr %submitted.at, i64 1 seq_cst
  call void @wake(ptr %submitted.at, ptr %sleepers.at)
  ret void
}

define void @openinfer_serve(ptr %control) {
entry:
  %submitted.at = getelementptr i64, ptr %control, i64 $SUBMITTED
  %sleepers.at = getelementptr i64, ptr %control, i64 $SLEEPERS
  %spin.at = getelementptr i64, ptr %control, i64 $SPIN_NS
  %completed.at = getelementptr i64, ptr %control, i64 $COMPLETED
  %notify.at = getelementptr i64, ptr %control, i64 $NOTIFY
  br label %loop
loop:
  %number = phi i64 [ 0, %entry ], [ %next, %work ]
  call void @wait(ptr %submitted.at, i64 %number, ptr %sleepers.at, ptr %spin.at)
  %slot = call ptr @slot_of(ptr %control, i64 %number)
  %table = load ptr, ptr %slot
  %stop = icmp eq ptr %table, null
  br i1 %stop, label %leave, label %work
work:
  %begun = call i64 @now()
  %status = call i32 @execute(ptr %table)
  %ended = call i64 @now()
  %begun.at = getelementptr i64, ptr %slot, i64 $SLOT_BEGUN
  %ended.at = getelementptr i64, ptr %slot, i64 $SLOT_ENDED
  %status.at = getelementptr i64, ptr %slot, i64 $SLOT_STATUS
  %wide = sext i32 %status to i64
  store i64 %begun, ptr %begun.at
  store i64 %ended, ptr %ended.at
  store i64 %wide, ptr %status.at
  %next = add i64 %number, 1
  store atomic i64 %next, ptr %completed.at release, align 8
  %notify = load i64, ptr %notify.at
  %descriptor = trunc i64 %notify to i32
  %written = call i64 @write(i32 %descriptor, ptr @one, i64 8)
  br label %loop
leave:
  ret void
}
"""


def text() -> str:
    """The functions above."""
    words = {name: str(value) for name, value in globals().items() if name.isupper() and isinstance(value, int)}
    return string.Template(_TEXT).substitute(words)
