"""What the sandbox costs and whether it holds: `python benchmarks/sandbox.py [attacks] [overhead] [trip] [kill]`, all by default.

attacks   the escape suite, as every user that this one can be, and without any lock beside it
overhead  bound calls of about 1 ms and of about 5 ms in a sandbox beside the same calls without one, in turns, distinct inputs, the refill
          of the inputs inside the clock on both sides: ratio of medians, and of fastest tenths, which other work disturbs less
trip      the round trip of a bound call at batch 1, by how long either side spins before it sleeps; and 32 requests in one crossing
kill      the worker is killed every 100 ms for 30 s under requests of mixed sizes from two threads: each answer is right, bit for bit, or a
          `SandboxError`; the time until a successor is locked and serves
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from openinfer.engine import Engine, load
from openinfer.errors import SandboxError
from openinfer.sandbox.attacks import suite
from openinfer.sandbox.backend import SandboxBackend

PARTS = ("attacks", "overhead", "trip", "kill")
# Calls in a row, what that is, whether the caller refills an array of `Engine.empty`, or one of its own that is copied.
CASES = ((10, "back to back", True), (1, "after a pause of one call", True), (1, "after a pause, an array of the caller's own", False))
AUTOENCODER = (640, 128, 128, 128, 8, 128, 128, 128, 640)
TICK = (40, 64, 32, 3)
FLOW = (78, 128, 64, 2)


def main() -> int:
    """Run the parts that are named; exit code 1 where one does not hold what is promised for it."""
    parts = sys.argv[1:] or PARTS
    print(f"load average {Path('/proc/loadavg').read_text().split()[0]}")
    return max({"attacks": attacks, "overhead": overhead, "trip": trip, "kill": kill}[part]() for part in parts)


def attacks() -> int:
    """How many attacks were stopped, and how many get through where nothing is locked."""
    failed = 0
    for name, (user, lock) in suite.identities().items():
        verdicts, _ = suite.run(user, lock)
        bad = [verdict.name for verdict in verdicts if verdict.stopped is not True]
        failed += len(bad)
        print(f"as {name}: {len(verdicts) - len(bad)} of {len(verdicts)} attacks stopped {bad or ''}")
    verdicts, _ = suite.run(lock="none")
    outside = [verdict for verdict in verdicts if verdict.group != "ring"]
    print(f"unlocked: {sum(verdict.stopped is False for verdict in outside)} of {len(outside)} get through")
    return int(failed > 0)


def overhead() -> int:
    """Ratios by blocks. Back to back the worker still spins when the next request comes; after a pause it has to be woken."""
    return max(overhead_of(name, perceptron(sizes)) for name, sizes in (("flow perceptron", FLOW), ("autoencoder", AUTOENCODER)))


def overhead_of(kind: str, model: bytes) -> int:
    """Ratios for one model."""
    missed = 0
    with load(model) as plain, load(model, {"sandbox": {"mode": "strict"}}) as boxed:
        for goal_ms, allowed in ((1.0, 1.05), (5.0, 1.03)):
            batch = sized(plain, goal_ms)
            # The same rows for both: an array that the kernel backs by small pages is read at a quarter of the speed.
            rows = drawn(plain, batch)
            for turn, name, shared in CASES:
                plain_call, boxed_call = filled(plain, rows), filled(boxed, rows, shared)
                ratios, fastest, plain_ms = [], [], []
                for _ in range(12):
                    a, b = alternated(plain_call, boxed_call, max(2, int(200 / goal_ms / turn)), turn)
                    ratios.append(statistics.median(b) / statistics.median(a))
                    fastest.append(float(np.percentile(b, 10) / np.percentile(a, 10)))
                    plain_ms.append(statistics.median(a) * 1e3)
                ratio = statistics.median(ratios)
                missed += ratio > allowed
                print(
                    f"{kind}, batch of {batch} rows, {statistics.median(plain_ms):.2f} ms, {name}: sandbox ÷ plain = {ratio:.3f} (blocks "
                    f"{min(ratios):.3f} to {max(ratios):.3f}); fastest tenths {statistics.median(fastest):.3f}; promised {allowed}"
                )
    return int(missed > 0)


def trip() -> int:
    """Percentiles of a bound call of the tick perceptron at batch 1."""
    model = perceptron(TICK)
    for spin_us in (1000, 200, 0):
        with load(model, {"sandbox": {"mode": "strict", "spin_us": spin_us}}) as boxed:
            call = filled(boxed, drawn(boxed, 1))
            times = [call() for _ in range(12_000)][2000:]
            p50, p99 = np.percentile(times, [50, 99]) * 1e6
            x = np.random.default_rng(0).standard_normal((1, TICK[0]), np.float32)
            each = []
            for _ in range(60):
                begin = time.perf_counter()
                boxed.run_many([{"x": x}] * 32)
                each.append((time.perf_counter() - begin) / 32 * 1e6)
            ones = []
            for _ in range(2000):
                begin = time.perf_counter()
                boxed.run({"x": x})
                ones.append((time.perf_counter() - begin) * 1e6)
            one = statistics.median(ones)
        print(
            f"spin_us = {spin_us}: round trip p50 {p50:.1f} µs, p99 {p99:.1f} µs; run {one:.1f} µs, "
            f"32 of them in one crossing {statistics.median(each):.1f} µs each"
        )
    return 0


def kill(seconds: float = 30.0, every: float = 0.1) -> int:
    """Kill the worker again and again under load."""
    model = perceptron(AUTOENCODER)
    answers: list[list[str]] = [[], []]
    restored: list[float] = []
    with load(model) as plain, load(model, {"sandbox": {"mode": "strict", "timeout_ms": 5000}}) as boxed:
        until = time.monotonic() + seconds
        requests: list[int] = [0, 0]

        def ask(index: int) -> None:
            generator = np.random.default_rng()
            while time.monotonic() < until:
                x = generator.standard_normal((int(generator.integers(1, 33)), AUTOENCODER[0]), np.float32)
                expected = plain.run({"x": x})["y"]
                requests[index] += 1
                try:
                    found = boxed.run({"x": x})["y"]
                    answers[index].append("right" if np.array_equal(found, expected) else "wrong")
                except SandboxError:
                    answers[index].append("SandboxError")
                except Exception as error:
                    answers[index].append(repr(error))

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        kills = 0
        while time.monotonic() < until:
            time.sleep(every * random.uniform(0.8, 1.2))
            backend = boxed._backend
            assert isinstance(backend, SandboxBackend)
            for descriptor in [child.descriptor for child in (backend._calls.client._workers.active,) if child is not None]:
                with contextlib.suppress(OSError):  # it may be between two workers
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    kills += 1
            restored.append(backend._calls.client.restore_ns / 1e6)
        for thread in threads:
            thread.join()
        replaced = boxed.statistics().sandbox["replaced"]
    counts = Counter(answers[0] + answers[1])
    lost = sum(requests) - sum(counts.values())
    print(
        f"{kills} kills in {seconds:.0f} s, {replaced} replacements, {sum(requests)} requests: {dict(counts)}, lost {lost}; "
        f"a successor serves after {statistics.median(restored[1:]):.1f} ms (median), {max(restored):.1f} ms (longest)"
    )
    return int(lost > 0 or not counts.keys() <= {"right", "SandboxError"})


def drawn(engine: Engine, batch: int) -> Any:
    """Inputs of `batch` rows: 64, or as many as take 128 MiB, more than caches hold."""
    columns = int((engine.inputs[0].shape or (0, 0))[1])
    count = min(64, max(4, (128 << 20) // (4 * batch * columns)))
    return np.random.default_rng(1).standard_normal((count, batch, columns), np.float32)


def filled(engine: Engine, rows: Any, shared: bool = True) -> Callable[[], float]:
    """A bound call with distinct inputs; it returns the seconds that refilling and calling took."""
    signature = engine.inputs[0]
    x = engine.empty(rows.shape[1:], "float32") if shared else np.empty(rows.shape[1:], np.float32)
    call = engine.bind({signature.name: x})
    turn = iter(range(1 << 60))

    def timed() -> float:
        row = rows[next(turn) % len(rows)]
        begin = time.perf_counter()
        x[...] = row
        call()
        return time.perf_counter() - begin

    return timed


def sized(engine: Engine, goal_ms: float) -> int:
    """The number of rows whose call takes about `goal_ms`."""
    call = filled(engine, drawn(engine, 64))
    each = min(call() for _ in range(50)) / 64
    return max(1, round(goal_ms / 1e3 / each))


def alternated(one: Callable[[], float], other: Callable[[], float], rounds: int, turn: int) -> tuple[list[float], list[float]]:
    """Times of both in turns A B B A of `turn` calls."""
    first: list[float] = []
    second: list[float] = []
    for index in range(rounds):
        sides = [(one, first), (other, second)]
        for call, times in sides if index % 2 == 0 else reversed(sides):
            times.extend(call() for _ in range(turn))
    return first, second


def perceptron(sizes: tuple[int, ...]) -> bytes:
    """Dense layers with Relu between them, "x" to "y", any batch."""
    generator = np.random.default_rng(0)
    nodes, constants, value = [], [], "x"
    for index, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weights: Any = (generator.standard_normal((rows, columns)) * np.sqrt(2 / rows)).astype(np.float32)
        constants += [numpy_helper.from_array(weights, f"w{index}"), numpy_helper.from_array(np.zeros(columns, np.float32), f"b{index}")]
        last = index == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], ["y" if last else f"h{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{index}"], [f"r{index}"]))
        value = f"r{index}"
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", sizes[-1]])],
        constants,
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


if __name__ == "__main__":
    sys.exit(main())
