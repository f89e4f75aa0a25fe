"""What each knob changes, measured where it matters: the default and another value side by side, blocks interleaved in mirrored order.

    python benchmarks/knobs.py

The scheduler's knobs act on traffic; they are measured by a replay of `hft`'s bursts. Those of the memory pool act on a recorded trace of
leases (`knobs_memory.py`).
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import knobs_memory
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from openinfer.workloads import registry
from openinfer.workloads.replay import replay_inline

import openinfer

BLOCKS = 30
BLOCK_S = 0.01
HOT, COLD = "back to back, p50 per call", "after 200 µs of idling, p50 per call"


@dataclasses.dataclass(frozen=True)
class Case:
    """One knob at one value beside its base: what is called, how, and what is compared."""

    knob: str
    value: Any
    model: Any
    base: dict[str, Any]
    measure: str


def perceptron(sizes: Sequence[int], rows: int, dtype: Any = np.float32) -> Any:
    """Dense layers with ReLU on `rows` rows at a time, in float32 or float64."""
    rng, nodes, constants, value = np.random.default_rng(0), [], [], "x"
    for index, (m, n) in enumerate(itertools.pairwise(sizes)):
        weight = (rng.standard_normal((m, n)) * np.sqrt(2 / m)).astype(dtype)
        constants.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes += [helper.make_node("MatMul", [value, f"w{index}"], [f"p{index}"]), helper.make_node("Relu", [f"p{index}"], [f"y{index}"])]
        value = f"y{index}"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ports = [helper.make_tensor_value_info(n, kind, [rows, s]) for n, s in (("x", sizes[0]), (value, sizes[-1]))]
    graph = helper.make_graph(nodes, "perceptron", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def convolution(channels: int, size: int) -> Any:
    """A padded 3×3 convolution of one image, as many channels out as in."""
    weight = np.random.default_rng(0).standard_normal((channels, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, channels, size, size]) for n in "xy"]
    graph = helper.make_graph([node], "convolution", ports[:1], ports[1:], [numpy_helper.from_array(weight.astype(np.float32), "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def settings(model: Any, base: dict[str, Any], knob: str, value: Any) -> openinfer.Config:
    """The base with one knob replaced; float32 with the calibration that it needs."""
    config = openinfer.Config().with_knobs({**base, knob: value})
    if (knob, value) != ("engine.precision", "float32"):
        return config
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return openinfer.calibrate(model, {"x": np.random.default_rng(2).standard_normal((8, *shape))}, config=config)


def call_of(engine: Any) -> Callable[[], None]:
    """A bound call on random rows, batch 1 where the model leaves it open."""
    rng = np.random.default_rng(1)
    shapes = {s.name: (tuple(1 if isinstance(d, str) else d for d in s.shape), s.dtype) for s in engine.inputs}
    bound: Callable[[], None] = engine.bind({name: rng.standard_normal(shape).astype(dtype) for name, (shape, dtype) in shapes.items()})
    return bound


def p50(call: Callable[[], None], idle_s: float) -> float:
    """Median ns of the calls of one block."""
    clock, taken, end = time.perf_counter_ns, [], time.perf_counter() + BLOCK_S
    while time.perf_counter() < end or len(taken) < 5:
        if idle_s:
            time.sleep(idle_s)
        begin = clock()
        call()
        taken.append(clock() - begin)
    return float(np.median(taken))


def compare(case: Case) -> tuple[float, float, float]:
    """(base, other, ratio other ÷ base) of the median call."""
    with (
        openinfer.load(case.model, openinfer.Config().with_knobs(case.base)) as one,
        openinfer.load(case.model, settings(case.model, case.base, case.knob, case.value)) as two,
    ):
        calls = call_of(one), call_of(two)
        idle_s = 200e-6 if case.measure == COLD else 0.0
        for call in calls:
            p50(call, idle_s)
        found: list[tuple[float, float]] = []
        for block in range(BLOCKS):
            order = (0, 1) if block % 4 in (0, 3) else (1, 0)
            times = {which: p50(calls[which], idle_s) for which in order}
            found.append((times[0], times[1]))
    base, other = np.median(found, axis=0)
    return base, other, float(np.median([b / a for a, b in found]))


def burst_p99(knobs: dict[str, Any]) -> float:
    """Median over five blocks of the p99 of a replay of hft's bursts, ns from due time to answer."""
    workload = registry.get("hft")
    trace = workload.traces("tuning", 5000)[0]
    assert trace.arrival_s is not None
    scheduler = openinfer.Config().with_knobs(knobs).scheduler
    source, due, found = trace.inputs["x"], trace.arrival_s, []
    with openinfer.load(workload.model_path()) as engine:
        calls = {n: engine.bind({"x": source[:n].copy()}) for n in range(1, scheduler.max_batch + 1)}
        for start in range(0, 5000, 1000):

            def serve(at: int, size: int, start: int = start) -> None:
                calls[size].inputs["x"][...] = source[start + at : start + at + size]
                calls[size]()

            times = replay_inline(
                due[start : start + 1000] - due[start], serve, max_batch=scheduler.max_batch, max_delay_us=scheduler.max_delay_us
            )
            found.append(float(np.quantile(times.corrected_ns, 0.99)))
    return float(np.median(found))


def collector_pause(policy: str) -> float:
    """The longest garbage collection of a program that makes 300,000 calls and keeps what it makes: ns, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            os.write(writer, str(_longest_collection(policy)).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)  # never back into the parent's table
    os.close(writer)
    with os.fdopen(reader) as answers:
        answer = answers.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise RuntimeError(f"the process that measures engine.gc={policy} ended with {code}")
    return float(answer)


def _longest_collection(policy: str) -> int:
    kept = [(i, [i]) for i in range(300_000)]
    engine = openinfer.load(registry.get("hft").model_path(), openinfer.Config().with_knobs({"engine.gc": policy}))
    call, clock, begin, longest = call_of(engine), time.perf_counter_ns, 0, 0

    def watch(phase: str, information: dict[str, int]) -> None:
        nonlocal begin, longest
        if phase == "start":
            begin = clock()
        else:
            longest = max(longest, clock() - begin)

    gc.callbacks.append(watch)
    for i in range(300_000):
        call()
        kept.append((i, [i]))
    return longest


def huge_bytes(huge: bool) -> float:
    """Bytes of this process on huge pages while a model of 64 MiB is loaded so. Without the knob it is the kernel's choice."""
    with openinfer.load(perceptron((4096, 4096), 1), {"memory": {"huge_pages": huge}}) as engine:
        call_of(engine)()
        with open("/proc/self/smaps_rollup", encoding="ascii") as file:
            return float(next(line.split()[1] for line in file if line.startswith("AnonHugePages"))) * 1024


def bound_threads(pin: str) -> float:
    """Threads of this process that may run on one processor only, while a pool of two works."""
    with openinfer.load(perceptron((512, 512), 64), {"engine": {"threads": 2, "pin": pin}}) as engine:
        call_of(engine)()
        return float(sum(len(os.sched_getaffinity(int(task))) == 1 for task in os.listdir("/proc/self/task")))


def misaligned(alignment: int) -> float:
    """Largest distance of an arena's start from a page, in bytes, over 20 arenas."""
    from openinfer.memory.arena import allocate

    return float(max(allocate(1000, alignment).ctypes.data % 4096 for _ in range(20)))


def main() -> None:
    """Print a row per knob."""
    gbdt = registry.get("hft").model_path("gbdt")
    wide, rows = perceptron((512, 512, 512), 64), perceptron((256, 256, 256), 32)
    two = {"engine.threads": 2}
    cases = [
        Case("engine.threads", 2, wide, {}, HOT),
        Case("engine.wait", "spin", wide, {**two, "engine.spin_us": 0}, COLD),
        Case("engine.spin_us", 1000, wide, {**two, "engine.spin_us": 0}, COLD),
        Case("engine.pin", "compact", wide, two, HOT),
        Case("engine.precision", "float64", rows, {}, HOT),
        Case("engine.precision", "float32", perceptron((256, 256, 256), 32, np.float64), {}, HOT),
        Case("engine.convolution", "direct", convolution(64, 56), {}, HOT),
        Case("engine.tile_rows", 1, rows, {}, HOT),
        Case("engine.tile_vectors", 8, rows, {}, HOT),
        Case("engine.tree_interleave", 4, gbdt, {}, HOT),
        Case("engine.tree_layout", "vector", gbdt, {}, HOT),
        Case("memory.huge_pages", True, perceptron((4096, 4096), 1), {}, HOT),
        Case("sandbox.spin_us", 1000, perceptron((40, 64, 32, 3), 1), {"sandbox.mode": "process"}, COLD),
        Case("sandbox.spin_us", 0, perceptron((40, 64, 32, 3), 1), {"sandbox.mode": "process"}, HOT),
        Case("memory.alignment", 4096, perceptron((40, 64, 32, 3), 1), {}, HOT),
    ]
    print(f"{'knob':24} {'value':>8} {'base':>12} {'other':>12} {'ratio':>7}  measured")
    for case in cases:
        row(case.knob, case.value, *compare(case), case.measure)
    for knob, value, base in (("scheduler.max_batch", 16, {}), ("scheduler.max_delay_us", 20, {"scheduler.max_batch": 16})):
        one, other = burst_p99(base), burst_p99({**base, knob: value})
        row(knob, value, one, other, other / one, "hft's bursts, p99 from due time to answer")
    pause = collector_pause("default")
    for policy in ("freeze", "off"):
        other = collector_pause(policy)
        row("engine.gc", policy, pause, other, None, "longest collection in 300,000 calls, heap of 300,000 kept objects and more")
    print(
        f"engine.pin: {bound_threads('none'):.0f} threads are bound to one processor with none, {bound_threads('compact'):.0f} with compact"
    )
    print(f"memory.huge_pages: {huge_bytes(False):.0f} bytes on huge pages without it, {huge_bytes(True):.0f} with it (64 MiB of weights)")
    print(f"memory.alignment: arenas start up to {misaligned(64):.0f} bytes behind a page with 64, {misaligned(4096):.0f} with 4096")
    knobs_memory.report()


def row(knob: str, value: object, base: float, other: float, ratio: float | None, measure: str) -> None:
    """One line of the table; times in µs. A single maximum has no ratio: the next run's is another."""
    quotient = "" if ratio is None else f"{ratio:.2f}×"
    print(f"{knob:24} {value!s:>8} {base / 1e3:10.2f}µs {other / 1e3:10.2f}µs {quotient:>7}  {measure}", flush=True)


if __name__ == "__main__":
    gc.collect()
    main()
