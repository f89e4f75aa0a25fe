"""Small compiled programs in the engine's native ABI, written as LLVM IR: what tests of calls and pools run."""

from __future__ import annotations

import functools

import numpy as np

from openinfer.codegen.loader import Library, load_ir
from openinfer.kernels.cpu.control_block import BARRIER_CODE, TABLE_CONTROL, TABLE_PROGRAM, TABLE_THREADS

_IR = f"""
define internal i64 @word(i64 %table, i64 %index) alwaysinline {{
  %base = inttoptr i64 %table to ptr
  %at = getelementptr i64, ptr %base, i64 %index
  %value = load i64, ptr %at
  ret i64 %value
}}

; y[i] = 2 * x[i], i < n, thread by thread in turn. Words: 3 x, 4 y, 5 n
define i32 @double(ptr %r, ptr %e, i64 %table, i64 %thread, i64 %threads) {{
entry:
  %x.word = call i64 @word(i64 %table, i64 3)
  %y.word = call i64 @word(i64 %table, i64 4)
  %n = call i64 @word(i64 %table, i64 5)
  %x = inttoptr i64 %x.word to ptr
  %y = inttoptr i64 %y.word to ptr
  br label %loop
loop:
  %i = phi i64 [ %thread, %entry ], [ %next, %one ]
  %over = icmp sge i64 %i, %n
  br i1 %over, label %done, label %one
one:
  %from = getelementptr float, ptr %x, i64 %i
  %value = load float, ptr %from
  %twice = fmul float %value, 2.0
  %to = getelementptr float, ptr %y, i64 %i
  store float %twice, ptr %to
  %next = add i64 %i, %threads
  br label %loop
done:
  ret i32 0
}}

; Thread 0 fails where word 3 is 0, the others where it is not.
define i32 @fail(ptr %r, ptr %e, i64 %table, i64 %thread, i64 %threads) {{
  %who = call i64 @word(i64 %table, i64 3)
  %others = icmp ne i64 %who, 0
  %other = icmp ne i64 %thread, 0
  %fails = icmp eq i1 %others, %other
  %status = select i1 %fails, i32 2, i32 0
  ret i32 %status
}}

; Counts in, then waits until the word at the address in word 3 is not 0. Word 4: address of the count
define i32 @wait(ptr %r, ptr %e, i64 %table, i64 %thread, i64 %threads) {{
entry:
  %flag.word = call i64 @word(i64 %table, i64 3)
  %count.word = call i64 @word(i64 %table, i64 4)
  %flag = inttoptr i64 %flag.word to ptr
  %count = inttoptr i64 %count.word to ptr
  atomicrmw add ptr %count, i64 1 seq_cst
  br label %loop
loop:
  %value = load atomic i64, ptr %flag seq_cst, align 8
  %closed = icmp eq i64 %value, 0
  br i1 %closed, label %loop, label %done
done:
  ret i32 0
}}

; Word 4 rounds of: count (at the address in word 3); barrier; every thread must see the full count; barrier. Fails where one does not.
define i32 @rounds(ptr %r, ptr %e, i64 %table, i64 %thread, i64 %threads) {{
entry:
  %control = call i64 @word(i64 %table, i64 {TABLE_CONTROL})
  %count.word = call i64 @word(i64 %table, i64 3)
  %rounds = call i64 @word(i64 %table, i64 4)
  %code.word = call i64 @word(i64 %control, i64 {BARRIER_CODE})
  %code = inttoptr i64 %code.word to ptr
  %count = inttoptr i64 %count.word to ptr
  %first = load i64, ptr %count
  call void %code(i64 %control, i64 %threads)
  br label %loop
loop:
  %k = phi i64 [ 0, %entry ], [ %k.next, %good ]
  %over = icmp sge i64 %k, %rounds
  br i1 %over, label %done, label %one
one:
  atomicrmw add ptr %count, i64 1 monotonic
  call void %code(i64 %control, i64 %threads)
  %seen = load i64, ptr %count
  %k.next = add i64 %k, 1
  %added = mul i64 %k.next, %threads
  %wanted = add i64 %first, %added
  %full = icmp eq i64 %seen, %wanted
  call void %code(i64 %control, i64 %threads)
  br i1 %full, label %good, label %bad
good:
  br label %loop
bad:
  ret i32 2
done:
  ret i32 0
}}
"""


@functools.cache
def library() -> Library:
    return load_ir(_IR, ["double", "fail", "wait", "rounds"])


def table(program: str, *rest: int, control: int = 0, threads: int = 1) -> np.ndarray:
    """A call's table; `rest` starts at word 3."""
    words = np.zeros(16, np.int64)
    words[TABLE_PROGRAM], words[TABLE_CONTROL], words[TABLE_THREADS] = library()[program], control, threads
    words[3 : 3 + len(rest)] = rest
    return words
