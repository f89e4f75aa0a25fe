"""LLVM IR of the thread pool: waiting, the workers' loop, sections and the barrier, over the words of `control_block`.

    wait(word, old):  spin until *word != old; after the budget: sleepers += 1; look again; futex(word, old, 1 s); sleepers -= 1
    section:          lock or run alone; set program and table; EPOCH += 1; wake sleepers; own share; wait for DONE; unlock
    worker:           wait(EPOCH); run share; DONE += 1; wake a sleeping caller
    barrier:          the last to arrive raises GENERATION; the others wait for it

Raising a word and reading its sleepers, and adding a sleeper and reading the word, are sequentially consistent: one side sees the other,
so no wake-up is lost; the time-out is a second net.
"""

from __future__ import annotations

import platform
import string
import sys

from openinfer.kernels.cpu import control_block

_X86 = platform.machine() in ("x86_64", "AMD64")
_PAUSE = "@llvm.x86.sse2.pause()" if _X86 else "@llvm.aarch64.hint(i32 1)"
_DECLARE_PAUSE = "@llvm.x86.sse2.pause()" if _X86 else "@llvm.aarch64.hint(i32)"
_FUTEX = 202 if _X86 else 98  # number of the system call
if sys.platform == "linux":
    _SLEEP = f"call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %word, i64 128, i64 %old, ptr @second, i64 0, i64 0)"
    _WAKE = f"call i64 (i64, ...) @syscall(i64 {_FUTEX}, ptr %word, i64 129, i64 2147483647, i64 0, i64 0, i64 0)"
    _CLOCK = 1
else:  # no futex: sleepers look again every 50 us
    _SLEEP, _WAKE, _CLOCK = "call i32 @usleep(i32 50)", "add i64 0, 0", 6

_TEXT = """
declare i64 @syscall(i64, ...)
declare i32 @usleep(i32)
declare i32 @clock_gettime(i32, ptr)
declare i32 @sched_yield()
declare void $DECLARE_PAUSE
@second = internal constant [2 x i64] [i64 1, i64 0]

define internal i64 @now() noinline {
  %time = alloca [2 x i64]
  call i32 @clock_gettime(i32 $CLOCK, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %rest
  ret i64 %ns
}

define internal void @wait(ptr %word, i64 %old, ptr %sleepers, ptr %spin) noinline {
entry:
  br label %look
look:
  %start = phi i64 [ 0, %entry ], [ %start, %pause ], [ %since, %again ], [ 0, %awake.spin ]
  %k = phi i64 [ 0, %entry ], [ %k.next, %pause ], [ 0, %again ], [ 0, %awake.spin ]
  %value = load atomic i64, ptr %word acquire, align 8
  %same = icmp eq i64 %value, %old
  br i1 %same, label %pause, label %done
pause:
  call void $PAUSE
  %k.next = add i64 %k, 1
  %more = icmp ult i64 %k.next, 64
  br i1 %more, label %look, label %clock
clock:
  %now = call i64 @now()
  %first = icmp eq i64 %start, 0
  %since = select i1 %first, i64 %now, i64 %start
  %spent = sub i64 %now, %since
  %budget = load atomic i64, ptr %spin monotonic, align 8
  %endless = icmp slt i64 %budget, 0
  %left = icmp slt i64 %spent, %budget
  %stay = or i1 %endless, %left
  br i1 %stay, label %polite, label %sleep
polite:
  %long = icmp sgt i64 %spent, 100000
  br i1 %long, label %yield, label %again
yield:
  call i32 @sched_yield()
  br label %again
again:
  br label %look
sleep:
  atomicrmw add ptr %sleepers, i64 1 seq_cst
  %value.2 = load atomic i64, ptr %word seq_cst, align 8
  %same.2 = icmp eq i64 %value.2, %old
  br i1 %same.2, label %futex, label %awake
futex:
  $SLEEP
  br label %awake
awake:
  atomicrmw sub ptr %sleepers, i64 1 seq_cst
  %value.3 = load atomic i64, ptr %word acquire, align 8
  %same.3 = icmp eq i64 %value.3, %old
  br i1 %same.3, label %awake.same, label %done
awake.same:
  %budget.2 = load atomic i64, ptr %spin monotonic, align 8
  %endless.2 = icmp slt i64 %budget.2, 0
  br i1 %endless.2, label %awake.spin, label %sleep
awake.spin:
  br label %look
done:
  ret void
}

define internal void @wake(ptr %word, ptr %sleepers) alwaysinline {
  %count = load atomic i64, ptr %sleepers seq_cst, align 8
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %some, label %none
some:
  $WAKE
  br label %none
none:
  ret void
}

define internal i32 @share(ptr %program, i64 %table, i64 %thread, i64 %threads) alwaysinline {
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 %program(ptr %result, ptr %error, i64 %table, i64 %thread, i64 %threads)
  ret i32 %status
}

define void @openinfer_worker(ptr %control, i64 %thread) {
entry:
  %epoch.at = getelementptr i64, ptr %control, i64 $EPOCH
  %program.at = getelementptr i64, ptr %control, i64 $PROGRAM
  %table.at = getelementptr i64, ptr %control, i64 $TABLE
  %threads.at = getelementptr i64, ptr %control, i64 $THREADS
  %spin.at = getelementptr i64, ptr %control, i64 $SPIN_NS
  %sleepers.at = getelementptr i64, ptr %control, i64 $SLEEPERS
  %done.at = getelementptr i64, ptr %control, i64 $DONE
  %status.at = getelementptr i64, ptr %control, i64 $STATUS
  %done.sleepers.at = getelementptr i64, ptr %control, i64 $DONE_SLEEPERS
  %entered.at = getelementptr i64, ptr %control, i64 $ENTERED
  %initial = load atomic i64, ptr %epoch.at acquire, align 8
  atomicrmw add ptr %entered.at, i64 1 seq_cst
  br label %loop
loop:
  %seen = phi i64 [ %initial, %entry ], [ %epoch, %finish ]
  call void @wait(ptr %epoch.at, i64 %seen, ptr %sleepers.at, ptr %spin.at)
  %epoch = load atomic i64, ptr %epoch.at acquire, align 8
  %program = load ptr, ptr %program.at
  %stop = icmp eq ptr %program, null
  br i1 %stop, label %leave, label %work
work:
  %table = load i64, ptr %table.at
  %threads = load i64, ptr %threads.at
  %status = call i32 @share(ptr %program, i64 %table, i64 %thread, i64 %threads)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %finish, label %note
note:
  %wide = sext i32 %status to i64
  store atomic i64 %wide, ptr %status.at monotonic, align 8
  br label %finish
finish:
  atomicrmw add ptr %done.at, i64 1 seq_cst
  call void @wake(ptr %done.at, ptr %done.sleepers.at)
  br label %loop
leave:
  atomicrmw sub ptr %entered.at, i64 1 seq_cst
  ret void
}

define i32 @openinfer_section(ptr %control, ptr %program, i64 %table) {
entry:
  %lock.at = getelementptr i64, ptr %control, i64 $LOCK
  %ready.at = getelementptr i64, ptr %control, i64 $READY
  %taken = cmpxchg ptr %lock.at, i64 0, i64 1 acquire monotonic
  %mine = extractvalue { i64, i1 } %taken, 1
  br i1 %mine, label %locked, label %alone
locked:
  %ready = load atomic i64, ptr %ready.at acquire, align 8
  %running = icmp ne i64 %ready, 0
  br i1 %running, label %publish, label %unlock.alone
unlock.alone:
  store atomic i64 0, ptr %lock.at release, align 8
  br label %alone
alone:
  %alone.at = getelementptr i64, ptr %control, i64 $ALONE
  atomicrmw add ptr %alone.at, i64 1 monotonic
  %status.alone = call i32 @share(ptr %program, i64 %table, i64 0, i64 1)
  ret i32 %status.alone
publish:
  %epoch.at = getelementptr i64, ptr %control, i64 $EPOCH
  %program.at = getelementptr i64, ptr %control, i64 $PROGRAM
  %table.at = getelementptr i64, ptr %control, i64 $TABLE
  %threads.at = getelementptr i64, ptr %control, i64 $THREADS
  %spin.at = getelementptr i64, ptr %control, i64 $SECTION_SPIN_NS
  %sleepers.at = getelementptr i64, ptr %control, i64 $SLEEPERS
  %done.at = getelementptr i64, ptr %control, i64 $DONE
  %status.at = getelementptr i64, ptr %control, i64 $STATUS
  %done.sleepers.at = getelementptr i64, ptr %control, i64 $DONE_SLEEPERS
  %target.at = getelementptr i64, ptr %control, i64 $TARGET
  %sections.at = getelementptr i64, ptr %control, i64 $SECTIONS
  %threads = load i64, ptr %threads.at
  %others = sub i64 %threads, 1
  %before = load i64, ptr %target.at
  %target = add i64 %before, %others
  store i64 %target, ptr %target.at
  %sections = load i64, ptr %sections.at
  %sections.next = add i64 %sections, 1
  store i64 %sections.next, ptr %sections.at
  store ptr %program, ptr %program.at
  store i64 %table, ptr %table.at
  atomicrmw add ptr %epoch.at, i64 1 seq_cst
  call void @wake(ptr %epoch.at, ptr %sleepers.at)
  %status = call i32 @share(ptr %program, i64 %table, i64 0, i64 %threads)
  br label %look
look:
  %done = load atomic i64, ptr %done.at acquire, align 8
  %finished = icmp eq i64 %done, %target
  br i1 %finished, label %finish, label %linger
linger:
  call void @wait(ptr %done.at, i64 %done, ptr %done.sleepers.at, ptr %spin.at)
  br label %look
finish:
  %theirs = load atomic i64, ptr %status.at monotonic, align 8
  %clean = icmp eq i64 %theirs, 0
  br i1 %clean, label %unlock, label %clear
clear:
  store atomic i64 0, ptr %status.at monotonic, align 8
  br label %unlock
unlock:
  store atomic i64 0, ptr %lock.at release, align 8
  %narrow = trunc i64 %theirs to i32
  %both = or i32 %status, %narrow
  ret i32 %both
}

define void @openinfer_stop(ptr %control) {
entry:
  %lock.at = getelementptr i64, ptr %control, i64 $LOCK
  %ready.at = getelementptr i64, ptr %control, i64 $READY
  %epoch.at = getelementptr i64, ptr %control, i64 $EPOCH
  %program.at = getelementptr i64, ptr %control, i64 $PROGRAM
  %sleepers.at = getelementptr i64, ptr %control, i64 $SLEEPERS
  br label %try
try:
  %taken = cmpxchg ptr %lock.at, i64 0, i64 1 acquire monotonic
  %mine = extractvalue { i64, i1 } %taken, 1
  br i1 %mine, label %stop, label %yield
yield:
  call i32 @sched_yield()
  br label %try
stop:
  store atomic i64 0, ptr %ready.at release, align 8
  store ptr null, ptr %program.at
  atomicrmw add ptr %epoch.at, i64 1 seq_cst
  call void @wake(ptr %epoch.at, ptr %sleepers.at)
  store atomic i64 0, ptr %lock.at release, align 8
  ret void
}

define void @openinfer_wake(ptr %control) {
  %epoch.at = getelementptr i64, ptr %control, i64 $EPOCH
  %sleepers.at = getelementptr i64, ptr %control, i64 $SLEEPERS
  call void @wake(ptr %epoch.at, ptr %sleepers.at)
  ret void
}

define void @openinfer_barrier(ptr %control, i64 %threads) {
entry:
  %arrived.at = getelementptr i64, ptr %control, i64 $ARRIVED
  %generation.at = getelementptr i64, ptr %control, i64 $GENERATION
  %sleepers.at = getelementptr i64, ptr %control, i64 $BARRIER_SLEEPERS
  %spin.at = getelementptr i64, ptr %control, i64 $SECTION_SPIN_NS
  %generation = load atomic i64, ptr %generation.at acquire, align 8
  %before = atomicrmw add ptr %arrived.at, i64 1 acq_rel
  %here = add i64 %before, 1
  %last = icmp eq i64 %here, %threads
  br i1 %last, label %open, label %linger
open:
  store atomic i64 0, ptr %arrived.at monotonic, align 8
  atomicrmw add ptr %generation.at, i64 1 seq_cst
  call void @wake(ptr %generation.at, ptr %sleepers.at)
  ret void
linger:
  call void @wait(ptr %generation.at, i64 %generation, ptr %sleepers.at, ptr %spin.at)
  ret void
}
"""


def text() -> str:
    """The functions above, for this machine."""
    words = {name: value for name, value in vars(control_block).items() if name.isupper()}
    return string.Template(_TEXT).substitute(words, PAUSE=_PAUSE, DECLARE_PAUSE=_DECLARE_PAUSE, SLEEP=_SLEEP, WAKE=_WAKE, CLOCK=_CLOCK)
