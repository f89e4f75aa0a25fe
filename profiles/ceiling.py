"""What this machine can do at most, measured in a tenth of a second: multiply-adds of one core, and reading from each level of memory."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import time
from collections.abc import Callable

import numpy as np

from openinfer.codegen.loader import load_ir
from openinfer.machine import host
from openinfer.memory.arena import empty

CHAINS = 12  # independent accumulators: enough to hide the latency of a multiply-add
ROUNDS = 5
LARGEST = 1 << 26


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """Of one core: float32 operations per ns (a multiply-add is two), and bytes read per ns from a working set of each size."""

    flops_per_ns: float
    bytes_per_ns: dict[int, float]

    def bandwidth(self, working_set: int) -> float:
        """Bytes per ns for a working set of this size: the next larger one that was measured."""
        fitting = [size for size in sorted(self.bytes_per_ns) if size >= working_set]
        return self.bytes_per_ns[fitting[0] if fitting else max(self.bytes_per_ns)]

    def floor_ns(self, flops: float, moved: float, working_set: int) -> float:
        """The least time for this arithmetic and these bytes."""
        return max(flops / self.flops_per_ns, moved / self.bandwidth(working_set))


@functools.cache
def measure() -> Ceiling:
    """The fastest of five rounds each; the first call also compiles two loops."""
    machine = host()
    lanes = machine.vector_bytes // 4
    library = load_ir(_text(lanes), ("multiply", "read"))
    multiply = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library["multiply"])
    read = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(library["read"])
    data = empty((LARGEST,), "uint8")
    data[:] = 0
    address = data.ctypes.data
    turns = 100_000
    flops = 2 * CHAINS * lanes * turns / _fastest(lambda: multiply(address, turns))
    sizes = [machine.l1_bytes // 2, machine.l2_bytes // 2, min(LARGEST // 2, machine.l3_bytes // 2), LARGEST]
    step = machine.vector_bytes * 8
    rates = {}
    for size in sizes:
        times, whole = max(1, (1 << 24) // size), size // step
        rates[size] = whole * step * times / _fastest(functools.partial(read, address, whole, times))
    return Ceiling(flops, rates)


def _fastest(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(ROUNDS):
        begin = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - begin)
    return float(max(1, np.min(taken)))


def _text(lanes: int) -> str:
    """`multiply(out, turns)`: chains of a ← a·b + b. `read(data, steps, times)`: the sum of all vectors, eight a step."""
    kind, name = f"<{lanes} x float>", f"v{lanes}f32"
    chains = range(CHAINS)
    out = [f"declare {kind} @llvm.fma.{name}({kind}, {kind}, {kind})", "define void @multiply(ptr %out, i64 %turns) {", "entry:"]
    out += [f"  %b = load {kind}, ptr %out", "  br label %loop", "loop:", "  %i = phi i64 [0, %entry], [%next, %loop]"]
    out += [f"  %a{k} = phi {kind} [%b, %entry], [%m{k}, %loop]" for k in chains]
    out += [f"  %m{k} = call {kind} @llvm.fma.{name}({kind} %a{k}, {kind} %b, {kind} %b)" for k in chains]
    out += ["  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, %turns", "  br i1 %more, label %loop, label %end", "end:"]
    out += [f"  store volatile {kind} %m{k}, ptr %out" for k in chains]
    out += ["  ret void", "}", "define void @read(ptr %data, i64 %steps, i64 %times) {", "entry:", f"  %zero = load {kind}, ptr %data"]
    out += ["  br label %again", "again:", "  %t = phi i64 [0, %entry], [%t.next, %done]", "  br label %loop", "loop:"]
    out += ["  %i = phi i64 [0, %again], [%next, %loop]"]
    out += [f"  %a{k} = phi {kind} [%zero, %again], [%s{k}, %loop]" for k in range(8)]
    out += ["  %base = mul i64 %i, 8"]
    for k in range(8):
        out += [
            f"  %o{k} = add i64 %base, {k}",
            f"  %p{k} = getelementptr {kind}, ptr %data, i64 %o{k}",
            f"  %x{k} = load {kind}, ptr %p{k}",
        ]
        out += [f"  %s{k} = fadd {kind} %a{k}, %x{k}"]
    out += ["  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, %steps", "  br i1 %more, label %loop, label %done", "done:"]
    out += [f"  store volatile {kind} %s{k}, ptr %data" for k in range(8)]
    out += ["  %t.next = add i64 %t, 1", "  %go = icmp slt i64 %t.next, %times", "  br i1 %go, label %again, label %end", "end:"]
    return "\n".join([*out, "  ret void", "}", ""])
