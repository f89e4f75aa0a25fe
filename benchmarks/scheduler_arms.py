"""The arms of `benchmarks/scheduler.py`: models, a thread per request, clients of `submit`, a feature store in SQLite."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import queue
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import openinfer

clock = time.perf_counter_ns

USERS, FEATURES = 20_000, 640

WRITER = f"""
import random, sqlite3, sys, time
store = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
print("ready", flush=True)
draw = random.Random(int(sys.argv[2]))
while True:
    store.execute("BEGIN EXCLUSIVE")
    store.executemany("UPDATE features SET stamp = stamp + 1 WHERE user = ?", [(draw.randrange({USERS}),) for _ in range(20)])
    time.sleep(draw.uniform(0, 0.004))
    store.execute("COMMIT")
    time.sleep(draw.uniform(0, 0.010))
"""


def dense(widths: Sequence[int], seed: int = 0) -> onnx.ModelProto:
    """Dense layers with ReLU between them: input "x", output "y", a symbolic batch."""
    draw = np.random.default_rng(seed)
    nodes, constants, value = [], [], "x"
    for index, (rows, columns) in enumerate(itertools.pairwise(widths)):
        weight = (draw.standard_normal((rows, columns)) * np.sqrt(2 / rows)).astype(np.float32)
        constants += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(np.zeros(columns, np.float32), f"b{index}")]
        last = index == len(widths) - 2
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], ["y" if last else f"h{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{index}"], [f"r{index}"]))
            value = f"r{index}"
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", widths[0]), ("y", widths[-1]))]
    graph = helper.make_graph(nodes, "dense", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@dataclasses.dataclass(frozen=True)
class Load:
    """Requests a second; mean time from sending to answer less the call's own, which is all waiting; processor time of a request."""

    per_s: float
    wait_ns: float
    cpu_ns: float


def thread_per_request(engine: openinfer.Engine, rows: Sequence[Any], in_flight: int, alone_ns: int) -> Load:
    """Every request starts a thread that calls `run`; `in_flight` clients send the next one once their last is answered."""
    answered: queue.SimpleQueue[int] = queue.SimpleQueue()  # when a client had its answer, and sends again
    begins, ends = [0] * len(rows), [0] * len(rows)

    def serve(index: int) -> None:
        engine.run({"x": rows[index]})
        ends[index] = end = clock()
        answered.put(end)

    begin, spent = clock(), time.process_time_ns()
    for _ in range(in_flight):
        answered.put(begin)
    threads: collections.deque[threading.Thread] = collections.deque()
    for index in range(len(rows)):
        begins[index] = answered.get()
        thread = threading.Thread(target=serve, args=(index,))
        thread.start()
        threads.append(thread)
        if len(threads) > 2 * in_flight:
            threads.popleft().join()
    for thread in threads:
        thread.join()
    elapsed, spent = clock() - begin, time.process_time_ns() - spent
    return Load(len(rows) / elapsed * 1e9, float(np.mean(np.subtract(ends, begins))) - alone_ns, spent / len(rows))


async def clients(engine: openinfer.Engine, rows: Sequence[Any], in_flight: int, **how: Any) -> Load:
    """`in_flight` tasks that each send the next request once their last is answered."""
    feed = iter(rows)
    latencies: list[int] = []
    begin, spent = clock(), time.process_time_ns()

    async def client() -> None:
        sent = begin
        for row in feed:
            await engine.submit({"x": row}, **how)
            answered = clock()
            latencies.append(answered - sent)
            sent = answered

    await asyncio.gather(*[client() for _ in range(in_flight)])
    elapsed, spent = clock() - begin, time.process_time_ns() - spent
    waits = engine.statistics().scheduler[0]["waits"]
    kernel_ns = waits["kernel_ns"]["mean"] if waits else 0.0
    return Load(len(rows) / elapsed * 1e9, float(np.mean(latencies)) - kernel_ns, spent / len(rows))


class FeatureStore:
    """A table of features by user in one SQLite file. A connection per thread; `look_up(user)` gives the model's inputs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "features.sqlite"
        self._own = threading.local()
        with contextlib.closing(sqlite3.connect(self._path)) as store, store:
            store.execute("PRAGMA journal_mode = DELETE")
            store.execute("CREATE TABLE features (user INTEGER PRIMARY KEY, stamp INTEGER, vector BLOB)")
            draw = np.random.default_rng(1)
            vectors = draw.standard_normal((USERS, FEATURES)).astype(np.float32)
            store.executemany("INSERT INTO features VALUES (?, 0, ?)", [(user, vectors[user].tobytes()) for user in range(USERS)])

    def look_up(self, user: int) -> dict[str, Any]:
        """The features of a user and of 20 neighbours, averaged."""
        store = getattr(self._own, "store", None)
        if store is None:
            store = self._own.store = sqlite3.connect(self._path, timeout=60, check_same_thread=False)
        first = min(user, USERS - 21)
        found = store.execute("SELECT vector FROM features WHERE user BETWEEN ? AND ?", (first, first + 20)).fetchall()
        block = np.frombuffer(b"".join(row[0] for row in found), np.float32).reshape(21, FEATURES)
        return {"x": block.mean(axis=0, keepdims=True)}

    @contextlib.contextmanager
    def updated(self) -> Iterator[None]:
        """Meanwhile another process keeps the features fresh: a transaction of 20 rows, up to 4 ms long, every 0 to 10 ms."""
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(self._path), "1"], stdout=subprocess.PIPE)
        try:
            assert writer.stdout is not None and writer.stdout.readline()
            yield
        finally:
            writer.kill()
            writer.wait()
            if writer.stdout is not None:
                writer.stdout.close()


async def look_ups(
    engine: openinfer.Engine, look_up: Callable[[int], dict[str, Any]], rows: Sequence[Any], share: float, in_flight: int, seed: int
) -> Load:
    """`in_flight` clients, of whose requests the given share begins with a look-up. The wait is not measured."""
    draw = random.Random(seed)
    feed = iter([(draw.random() < share, draw.randrange(USERS), row) for row in rows])
    begin, spent = clock(), time.process_time_ns()

    async def client() -> None:
        for blocks, user, row in feed:
            if blocks:
                await engine.submit(user, prepare=look_up)
            else:
                await engine.submit({"x": row})

    await asyncio.gather(*[client() for _ in range(in_flight)])
    elapsed, spent = clock() - begin, time.process_time_ns() - spent
    return Load(len(rows) / elapsed * 1e9, 0.0, spent / len(rows))
