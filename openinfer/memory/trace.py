"""Recorded allocations, and their replay against any pool policy: the same figures in every run, with no memory and no waiting."""

from __future__ import annotations

import dataclasses
import os
import threading
import zipfile

import numpy as np

from openinfer.errors import InputError, MemoryBudgetError
from openinfer.ir.graph import Array
from openinfer.memory.controller import Policy
from openinfer.memory.lease import Lease
from openinfer.memory.pool import Pool, PoolStatistics
from openinfer.memory.region import UnmappedRegion

RELEASE = -1


@dataclasses.dataclass(frozen=True)
class AllocationTrace:
    """Events in order: `time_s` (float64), `number` of the lease (int64), `size_bytes` (int64; -1 for a release), `owner` (index into
    `owners`).
    """

    time_s: Array
    number: Array
    size_bytes: Array
    owner: Array
    owners: tuple[str, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file."""
        arrays = {name: getattr(self, name) for name in ("time_s", "number", "size_bytes", "owner")}
        np.savez_compressed(path, **arrays, owners=np.array(self.owners, str))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AllocationTrace:
        """Read what `save` wrote; `InputError` for anything else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                columns = (file["time_s"], file["number"], file["size_bytes"], file["owner"])
                owners = tuple(str(name) for name in file["owners"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not an allocation trace ({error}); allowed: an .npz written by AllocationTrace.save") from None
        if len({len(column) for column in columns}) != 1 or (len(columns[3]) and columns[3].max() >= len(owners)):
            raise InputError(f"{path}: its columns do not belong together; allowed: an .npz written by AllocationTrace.save")
        return cls(*columns, owners)


class Recorder:
    """Give it to a pool as `record`; `trace()` is what happened so far."""

    def __init__(self) -> None:
        self._events: list[tuple[float, int, int, str]] = []
        self._lock = threading.Lock()

    def __call__(self, time_s: float, number: int, size_bytes: int, owner: str) -> None:
        with self._lock:
            self._events.append((time_s, number, size_bytes, owner))

    def trace(self) -> AllocationTrace:
        """The events as arrays."""
        with self._lock:
            events = list(self._events)
        owners = {owner: index for index, owner in enumerate(dict.fromkeys(event[3] for event in events))}
        return AllocationTrace(
            np.array([event[0] for event in events], np.float64),
            np.array([event[1] for event in events], np.int64),
            np.array([event[2] for event in events], np.int64),
            np.array([owners[event[3]] for event in events], np.int64),
            tuple(owners),
        )


@dataclasses.dataclass(frozen=True)
class Replay:
    """The pool after a replay, its means over time, and the leases that the budget refused."""

    statistics: PoolStatistics
    mean_held_bytes: float
    mean_leased_bytes: float
    refused: int


def replay(trace: AllocationTrace, policy: Policy) -> Replay:
    """Run a trace through a pool with `policy` on the trace's own clock. A refused lease is left out, with its release."""
    now = 0.0
    pool = Pool(policy, clock=lambda: now, new_region=UnmappedRegion)
    live: dict[int, Lease] = {}
    held_s = leased_s = 0.0
    refused = 0
    start = float(trace.time_s[0]) if len(trace.time_s) else 0.0
    now = start
    columns = (trace.time_s.tolist(), trace.number.tolist(), trace.size_bytes.tolist(), trace.owner.tolist())
    for time_s, number, size_bytes, owner in zip(*columns, strict=True):
        held_s += pool.held_bytes * (time_s - now)
        leased_s += pool.leased_bytes * (time_s - now)
        now = time_s
        if size_bytes == RELEASE:
            lease = live.pop(number, None)
            if lease is not None:
                lease.release()
            continue
        try:
            live[number] = pool.lease(size_bytes, trace.owners[owner])
        except MemoryBudgetError:
            refused += 1
    span = max(now - start, 1e-12)
    return Replay(pool.statistics(), held_s / span, leased_s / span, refused)
