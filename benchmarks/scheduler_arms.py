"""The arms of `benchmarks/scheduler.py`: models, a thread per request, clients of `submit`, a feature store in SQLite."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import os
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import openinfer

clock = time.perf_counter_ns

ITEMS, FEATURES, CANDIDATES = 20_000, 640, 20


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
    """A table of features by item in one SQLite file, 51 MB; a connection per thread, each with a page cache of 64 KB.

    `missing` is the part of the file that no look-up finds in memory, as in a store that is larger than memory: after each of them the
    kernel is told to drop those pages.
    """

    def __init__(self, folder: Path, missing: float) -> None:
        self._path, self.missing = folder / "features.sqlite", missing
        self._own = threading.local()
        if not self._path.exists():
            draw = np.random.default_rng(1)
            vectors = draw.standard_normal((ITEMS, FEATURES)).astype(np.float32)
            with contextlib.closing(sqlite3.connect(self._path)) as store, store:
                store.execute("CREATE TABLE features (item INTEGER PRIMARY KEY, vector BLOB)")
                store.executemany("INSERT INTO features VALUES (?, ?)", [(item, vectors[item].tobytes()) for item in range(ITEMS)])
        self._file = os.open(self._path, os.O_RDONLY)
        os.fsync(self._file)  # only pages that are on the disk can be dropped
        self._bytes = len(self._path.read_bytes())

    def look_up(self, request: int) -> dict[str, Any]:
        """The features of the request's 20 candidates, averaged: the model's inputs."""
        store = getattr(self._own, "store", None)
        if store is None:
            store = self._own.store = sqlite3.connect(self._path, check_same_thread=False)
            store.execute("PRAGMA cache_size = -64")
        draw = random.Random(request)
        items = [draw.randrange(ITEMS) for _ in range(CANDIDATES)]
        found = store.execute(f"SELECT vector FROM features WHERE item IN ({', '.join('?' * CANDIDATES)})", items).fetchall()
        if self.missing:
            os.posix_fadvise(self._file, 0, int(self.missing * self._bytes), os.POSIX_FADV_DONTNEED)
        block = np.frombuffer(b"".join(row[0] for row in found), np.float32).reshape(-1, FEATURES)
        return {"x": block.mean(axis=0, keepdims=True)}

    def parts(self, calls: int = 300) -> tuple[float, float]:
        """(used, waited): the ns that a look-up alone computes and waits, as means."""
        draw, used, took = random.Random(), 0, 0
        for _ in range(calls):
            request, before, begin = draw.randrange(1 << 30), time.thread_time_ns(), clock()
            self.look_up(request)
            took += clock() - begin
            used += time.thread_time_ns() - before
        return used / calls, (took - used) / calls

    def close(self) -> None:
        """Connections are closed with their threads."""
        os.close(self._file)


async def look_ups(
    engine: openinfer.Engine, look_up: Callable[[int], dict[str, Any]], rows: Sequence[Any], share: float, in_flight: int, seed: int
) -> Load:
    """`in_flight` clients, of whose requests the given share begins with a look-up. The wait is not measured."""
    draw = random.Random(seed)
    feed = iter([(draw.random() < share, draw.randrange(1 << 30), row) for row in rows])
    begin, spent = clock(), time.process_time_ns()

    async def client() -> None:
        for blocks, request, row in feed:
            if blocks:
                await engine.submit(request, prepare=look_up)
            else:
                await engine.submit({"x": row})

    await asyncio.gather(*[client() for _ in range(in_flight)])
    elapsed, spent = clock() - begin, time.process_time_ns() - spent
    return Load(len(rows) / elapsed * 1e9, 0.0, spent / len(rows))
