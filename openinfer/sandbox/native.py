"""Native waiting and waking on words that two processes share, linked once a process.

    wait(word, old, waiters, nap_ns, spin_ns, timeout_ns):
                     sleep for nap_ns; spin until *word != old; after the budget sleep, until woken or late. To sleep is
                     waiters += 1; look again; futex(word, old, time); waiters -= 1
    post(word, value, waiters):
                     *word = value; wake whoever waits

The store and the look at `waiters`, and the raise of `waiters` and the second look at the word, are sequentially consistent: one side sees
the other, so no wake-up is lost. The time-out is the second net, and the only one against a peer that lies about its words.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import string
from collections.abc import Callable
from typing import Any

from openinfer.codegen import object_cache
from openinfer.codegen.loader import Library, compile_ir, load_object
from openinfer.fork_lock import ForkLock

_EXPORTS = ("openinfer_ring_wait", "openinfer_ring_post")
_X86 = platform.machine() in ("x86_64", "AMD64")
_PAUSE = "@llvm.x86.sse2.pause()" if _X86 else "@llvm.aarch64.hint(i32 1)"
_DECLARE_PAUSE = "@llvm.x86.sse2.pause()" if _X86 else "@llvm.aarch64.hint(i32)"
_FUTEX = 202 if _X86 else 98  # number of the system call; operations 0 (wait) and 1 (wake) without the private flag: two processes

_TEXT = """
declare i64 @syscall(i64, ...)
declare i32 @clock_gettime(i32, ptr)
declare void $DECLARE_PAUSE

define internal i64 @now() noinline {
  %time = alloca [2 x i64]
  call i32 @clock_gettime(i32 1, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %ns = add i64 %whole, %rest
  ret i64 %ns
}

define i64 @openinfer_ring_wait(ptr %word, i64 %old, ptr %waiters, i64 %nap, i64 %spin, i64 %timeout) noinline {
entry:
  %rest = alloca [2 x i64]
  %early = load atomic i64, ptr %word acquire, align 8
  %ready = icmp ne i64 %early, %old
  br i1 %ready, label %changed, label %begin
begin:
  %start = call i64 @now()
  %naps = icmp sgt i64 %nap, 0
  br i1 %naps, label %announce, label %look
look:
  %k = phi i64 [ 0, %begin ], [ %k.next, %pause ], [ 0, %clock ], [ 0, %rested ]
  %value = load atomic i64, ptr %word acquire, align 8
  %same = icmp eq i64 %value, %old
  br i1 %same, label %pause, label %changed
pause:
  call void $PAUSE
  %k.next = add i64 %k, 1
  %more = icmp ult i64 %k.next, 32
  br i1 %more, label %look, label %clock
clock:
  %now = call i64 @now()
  %spent = sub i64 %now, %start
  %active = sub i64 %spent, %nap
  %stay = icmp slt i64 %active, %spin
  br i1 %stay, label %look, label %sleep
sleep:
  %now.2 = call i64 @now()
  %spent.2 = sub i64 %now.2, %start
  %left = sub i64 %timeout, %spent.2
  %over = icmp sle i64 %left, 0
  br i1 %over, label %late, label %announce
announce:
  %span = phi i64 [ %nap, %begin ], [ %left, %sleep ]
  %napping = phi i1 [ true, %begin ], [ false, %sleep ]
  %seconds = sdiv i64 %span, 1000000000
  %ns = srem i64 %span, 1000000000
  store i64 %seconds, ptr %rest
  %ns.at = getelementptr i64, ptr %rest, i64 1
  store i64 %ns, ptr %ns.at
  atomicrmw add ptr %waiters, i64 1 seq_cst
  %value.2 = load atomic i64, ptr %word seq_cst, align 8
  %same.2 = icmp eq i64 %value.2, %old
  br i1 %same.2, label %futex, label %awake
futex:
  call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i64 0, i64 %old, ptr %rest, i64 0, i64 0)
  br label %awake
awake:
  atomicrmw sub ptr %waiters, i64 1 seq_cst
  %value.3 = load atomic i64, ptr %word acquire, align 8
  %same.3 = icmp eq i64 %value.3, %old
  br i1 %same.3, label %rested, label %changed
rested:
  br i1 %napping, label %look, label %late
changed:
  ret i64 0
late:
  ret i64 1
}

define void @openinfer_ring_post(ptr %word, i64 %value, ptr %waiters) {
  store atomic i64 %value, ptr %word seq_cst, align 8
  %count = load atomic i64, ptr %waiters seq_cst, align 8
  %any = icmp ne i64 %count, 0
  br i1 %any, label %wake, label %done
wake:
  call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %word, i64 1, i64 2147483647, i64 0, i64 0, i64 0)
  br label %done
done:
  ret void
}
"""

_lock = ForkLock()


def wait() -> Callable[[int, int, int, int, int, int], int]:
    """`wait(word, old, waiters, nap_ns, spin_ns, timeout_ns)`, words by address: 0 once the word is not `old`, 1 after the time-out
    and where a sleeper is woken without a change, by a signal or by `post` of the same value: who calls again spins again."""
    return _function("openinfer_ring_wait", ctypes.c_int64, 6)


def post() -> Callable[[int, int, int], None]:
    """`post(word, value, waiters)`, words by address: store the value, wake whoever waits for a change."""
    return _function("openinfer_ring_post", None, 3)


def _function(symbol: str, result: type[ctypes.c_int64] | None, arguments: int) -> Callable[..., Any]:
    with _lock.held():
        address = _library()[symbol]
    native: Callable[..., Any] = ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * arguments)(address)
    return native


@functools.cache
def _library() -> Library:
    text = string.Template(_TEXT).substitute(PAUSE=_PAUSE, DECLARE_PAUSE=_DECLARE_PAUSE, FUTEX=_FUTEX)
    name = object_cache.key(text, ())
    stored = object_cache.load(name)
    if stored is not None:
        return load_object(stored[1], _EXPORTS)
    elf = compile_ir(text)
    object_cache.store(name, _EXPORTS[0], elf)
    return load_object(elf, _EXPORTS)
