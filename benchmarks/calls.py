"""What the boundary between Python and a compiled program costs: ns a call, best of interleaved rounds. `python benchmarks/calls.py`

The program adds one to four floats, one per thread, so that what is timed is the way in and out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from openinfer.codegen.loader import load_ir
from openinfer.runtime.entry import Port, Runner, bound_call, data_address
from openinfer.runtime.pool import Pool

PROGRAM = """
define i32 @program(ptr %result, ptr %error, i64 %table, i64 %thread, i64 %threads) {
  %base = inttoptr i64 %table to ptr
  %x.at = getelementptr i64, ptr %base, i64 3
  %y.at = getelementptr i64, ptr %base, i64 4
  %x = load ptr, ptr %x.at
  %y = load ptr, ptr %y.at
  %from = getelementptr <4 x float>, ptr %x, i64 %thread
  %to = getelementptr <4 x float>, ptr %y, i64 %thread
  %value = load <4 x float>, ptr %from, align 4
  %sum = fadd <4 x float> %value, splat (float 1.0)
  store <4 x float> %sum, ptr %to, align 4
  ret i32 0
}
"""
ROUNDS, CALLS = 15, 20_000


def main() -> None:
    library = load_ir(PROGRAM, ["program"])
    x, y = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)

    def table(pool: Pool | None = None) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array(
            [library["program"], pool.address if pool else 0, pool.threads if pool else 1, x.ctypes.data, y.ctypes.data], np.int64
        )

    def empty() -> None:
        return None

    runner = Runner(table, [Port("x", "float32", (16,), 3)], [Port("y", "float32", (16,), 4)])
    run, address = runner.run, data_address()
    with Pool(2, wait="spin") as spinning, Pool(2, spin_us=0) as sleeping:
        cases: dict[str, Callable[[], object]] = {
            "an empty Python function": empty,
            "bound call": bound_call(table(), library),
            "bound call, GIL released": bound_call(table(), library, release_gil=True),
            "run, one input and one output": lambda: run({"x": x}),
            "…of which the lambda and its dict": lambda: {"x": x},
            "data address": lambda: address(x),
            "two-thread section, spinning": bound_call(table(spinning), (library, spinning)),
        }
        best = dict.fromkeys(cases, float("inf"))
        for _ in range(ROUNDS):
            for name, call in cases.items():
                spins = name.endswith("spinning")
                spinning.unpark() if spins else spinning.park()
                best[name] = min(best[name], _per_call(call, CALLS))
        best["two-thread section, worker asleep"] = _from_sleep(sleeping, bound_call(table(sleeping), (library, sleeping)))
    for name, value in best.items():
        print(f"{name:36s}{value:10.1f} ns")


def _from_sleep(pool: Pool, call: Callable[[], object]) -> float:
    """Median of calls that each find the worker asleep: the wake-up of a processor dominates."""
    call()
    samples = []
    for _ in range(300):
        while not pool.statistics()["asleep"]:
            time.sleep(50e-6)
        start = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - start)
    return float(np.median(samples))


def _per_call(call: Callable[[], object], count: int) -> float:
    call()
    start = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - start) / count


if __name__ == "__main__":
    main()
