"""What the instruments cost, and what the corrected latency shows that the raw one does not.

    python benchmarks/instruments.py cost        # all on against all off, and each one's share
    python benchmarks/instruments.py stamps      # what the timestamps of a call cost
    python benchmarks/instruments.py stall       # 80% of capacity with a stall of 50 ms

Cost: a model of about 1 ms and the tick perceptron, called back to back; blocks with and without instruments alternate (A B B A) in one
process, and the ratio is the median over pairs of blocks of p50 ÷ p50.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from openinfer.profiles import histogram
from openinfer.profiles.session import INSTRUMENTS, Session
from openinfer.workloads import registry
from openinfer.workloads.replay import replay_inline

import openinfer

BLOCK_S = 1.0
PAIRS = 10
QUIET = tuple(name for name in INSTRUMENTS if name != "layers")  # layers are timed in a pass of their own


def millisecond_model(rng: np.random.Generator) -> Any:
    """Two dense layers of 2048 × 2048 at batch 8."""
    weights = [numpy_helper.from_array(rng.standard_normal((2048, 2048)).astype(np.float32) / 45, f"w{k}") for k in range(2)]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("MatMul", ["h", "w1"], ["y"])]
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, 2048]) for name in "xy"]
    graph = helper.make_graph(nodes, "millisecond", kinds[:1], kinds[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def p50_ns(call: Any, seconds: float) -> float:
    """Median ns a call, timed in rows, so that nothing but the call's own stamps stands between two of them."""
    clock, end, found = time.perf_counter_ns, time.perf_counter() + seconds, []
    while time.perf_counter() < end:
        begin = clock()
        for _ in range(256):
            call()
        found.append((clock() - begin) / 256)
    return float(np.median(found))


def times_ns(call: Any, seconds: float) -> float:
    """Median ns of single calls."""
    clock, end, found = time.perf_counter_ns, time.perf_counter() + seconds, []
    while time.perf_counter() < end:
        begin = clock()
        call()
        found.append(clock() - begin)
    return float(np.median(found))


def ratio(engine: Any, call: Any, off: tuple[str, ...], pairs: int) -> tuple[float, float, float]:
    """p50 with ÷ p50 without: median over pairs, and the quartiles."""
    found = []
    for pair in range(pairs):
        sides = {}
        for on in (False, True) if pair % 2 else (True, False):
            if on:
                with Session(engine, off):
                    sides[on] = times_ns(call, BLOCK_S)
            else:
                sides[on] = times_ns(call, BLOCK_S)
        found.append(sides[True] / sides[False])
    low, middle, high = np.percentile(found, [25, 50, 75])
    return float(middle), float(low), float(high)


def cost() -> None:
    """Print the ratios."""
    seed = int(np.random.SeedSequence().entropy % 2**32)
    rng = np.random.default_rng(seed)
    print(f"{seed=}")
    with openinfer.load(millisecond_model(rng)) as engine:
        call = engine.bind({"x": rng.standard_normal((8, 2048)).astype(np.float32)})
        times_ns(call, 0.5)
        print(f"a model of {times_ns(call, 0.5) / 1e6:.2f} ms, p50 with instruments ÷ without (quartiles of {PAIRS} pairs of blocks)")
        middle, low, high = ratio(engine, call, (), PAIRS)
        print(f"  all      {middle:.4f} ({low:.4f} to {high:.4f})")
        for name in QUIET[1:]:
            middle, low, high = ratio(engine, call, tuple(other for other in INSTRUMENTS if other != name), PAIRS // 2)
            print(f"  {name:8} {middle:.4f} ({low:.4f} to {high:.4f})")


def stamps() -> None:
    """Print what stamped calls of the tick perceptron take more than bound ones."""
    rng = np.random.default_rng()
    with openinfer.load(str(registry.get("hft").model_path("tick_mlp"))) as engine:
        signature = engine.inputs[0]
        x = {signature.name: rng.standard_normal((1, 40)).astype(np.float32)}
        calls = {False: engine.bind(x), True: engine.bind_stamped(x, np.zeros((1 << 16, 2), np.int64))}
        added = []
        for pair in range(2 * PAIRS):
            sides = {stamped: p50_ns(calls[stamped], 0.2) for stamped in ((False, True) if pair % 2 else (True, False))}
            added.append(sides[True] - sides[False])
        print(f"timestamps on the tick perceptron: {np.median(added):.0f} ns a call more ({min(added):.0f} to {max(added):.0f})")


def stall() -> None:
    """Print p99.9 of both kinds."""
    seed = int(np.random.SeedSequence().entropy % 2**32)
    rng = np.random.default_rng(seed)
    busy_ns, requests = 200_000, 20_000
    # Stalls in 0.05% of the calls: p99.9 of the calls alone lies below them.
    stalled = set(rng.choice(requests, requests // 2000, replace=False).tolist())
    clock = time.perf_counter_ns

    def serve(at: int, size: int) -> None:
        until = clock() + (50_000_000 if at in stalled else busy_ns)
        while clock() < until:
            continue

    times = replay_inline(np.cumsum(rng.exponential(busy_ns / 0.8 / 1e9, requests)), serve)
    found = {
        name: histogram.quantile(histogram.histogram(values), 0.999) / 1e6
        for name, values in (("corrected", times.corrected_ns), ("raw", times.raw_ns))
    }
    print(f"{seed=}, {requests} requests at 80% of capacity, {len(stalled)} stalls of 50 ms")
    print(f"p99.9: corrected {found['corrected']:.1f} ms, raw {found['raw']:.2f} ms")


if __name__ == "__main__":
    {"cost": cost, "stamps": stamps, "stall": stall}[sys.argv[1] if len(sys.argv) > 1 else "cost"]()
