"""All instruments around any piece of code: `with Session(engine) as session: ...`, then `session.record(...)`.

Each instrument can be left out (`off`), and says what it cost of the run's time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from openinfer.profiles import ceiling, histogram, neighbours, stacks, steady
from openinfer.profiles.cachegrind import LayerCache
from openinfer.profiles.findings import find
from openinfer.profiles.layers import LayerFigures
from openinfer.profiles.locks import Locks
from openinfer.profiles.perf_events import Counters
from openinfer.profiles.profile_record import Instrument, ProfileRecord, Row
from openinfer.profiles.sampler import Sampler

from openinfer.engine import Engine
from openinfer.errors import InputError, suggest
from openinfer.machine import host

INSTRUMENTS = ("latency", "memory", "locks", "noise", "events", "stacks", "layers")
KEPT_PROCESSES = 10
PROBES = 2000


class Session:
    """Instruments on between `__enter__` and `__exit__`, in one process. `InputError` for an unknown instrument in `off`."""

    def __init__(self, engine: Engine | None = None, off: Collection[str] = (), gil_only: bool = False) -> None:
        for name in off:
            if name not in INSTRUMENTS:
                raise InputError(f"unknown instrument {name!r}; {suggest(name, INSTRUMENTS)}")
        self.off = frozenset(off)
        self.process = str(os.getpid())
        self.rows: list[Row] = []
        self.histograms: dict[str, str] = {}
        self.locks = Locks()
        self.instruments: list[Instrument] = []
        self.raw_stacks: dict[str, int] = {}
        self._engine = engine
        self._layers: list[LayerFigures] = []
        self._sampler = Sampler(self.process, (lambda: engine.statistics().memory) if engine is not None else None)
        self._stacks = stacks.Stacks(gil_only)
        self._exits = contextlib.ExitStack()
        self._counters = Counters()
        self._scan: neighbours.Scan | None = None
        self._begin_ns = self._end_ns = 0
        self._hardware = False
        self._started = datetime.datetime.now(datetime.UTC)

    def __enter__(self) -> Session:
        if "locks" not in self.off:
            self._exits.enter_context(self.locks.watch())
        if "stacks" not in self.off:
            self._stacks.start()
        if "noise" not in self.off:
            self._scan = neighbours.scan()
        self._started = datetime.datetime.now(datetime.UTC)
        if "events" not in self.off:
            self._counters.start()
        self._begin_ns = time.perf_counter_ns()
        if "memory" not in self.off:
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_ns = time.perf_counter_ns()
        self._hardware, events = self._counters.hardware, self._counters.stop()
        for name, count in events.items():
            self._add("events", name, "", float(count), "count")
        if "memory" not in self.off:
            self._sampler.stop()
            self.rows += self._sampler.rows
        if self._scan is not None:
            self._note_noise(neighbours.between(self._scan, neighbours.scan(), os.getpid()))
        if "stacks" not in self.off:
            self.raw_stacks = self._stacks.stop()
        self._exits.close()
        self._note_locks()
        self._note_costs()

    @property
    def duration_s(self) -> float:
        """How long the code inside took."""
        return (self._end_ns - self._begin_ns) / 1e9

    def add_latency(self, stages: Mapping[str, Any]) -> None:
        """Nanoseconds of each request by stage, as integers: histograms, and whether their level was steady."""
        if "latency" in self.off:
            return
        for stage, values in stages.items():
            made = histogram.histogram(values)
            self.histograms[stage] = histogram.encode(made)
            for q in (0.5, 0.9, 0.99, 0.999, 0.9999):
                if q < 0.99 or len(values) >= 2 / (1 - q):
                    self._add("latency", stage, f"p{100 * q:g}", histogram.quantile(made, q), "ns")
            self._add("latency", stage, "largest", float(np.max(values)), "ns")
        levels = steady.medians(stages["kernel" if "kernel" in stages else next(iter(stages))])
        found = steady.verdict(levels)
        for block, level in enumerate(levels):
            self._add("steady", "level", str(block), level, "ns")
        self._add("steady", "steady", "", float(found.steady), "yes or no")
        for block, before, after in found.changes:
            self._add("steady", "change", f"at {block / found.blocks:.0%} of the run", float(np.log(after / before)), "log ratio")

    def take_stacks(self, other: Session) -> None:
        """The stacks that another session took, and what it says of them."""
        self.raw_stacks = other.raw_stacks
        theirs = [dataclasses.replace(one, note=f"{one.note}, in a pass of its own") for one in other.instruments if one.name == "stacks"]
        self.instruments = [*(one for one in self.instruments if one.name != "stacks"), *theirs]

    def add_refused(self, refused: int, requests: int) -> None:
        """Requests that the scheduler refused, which have no latency."""
        self._add("requests", "refused", "", refused, "count")
        self._add("requests", "sent", "", requests, "count")

    def add_waits(self, waits: Mapping[str, Mapping[str, float]]) -> None:
        """What a scheduler recorded of its latest requests, by stage: `Engine.statistics().scheduler[…]["waits"]`."""
        for stage, figures in waits.items():
            if stage.endswith("_ns") and stage != "total_ns" and "latency" not in self.off:
                for name in ("p50", "p99", "max"):
                    self._add("latency", stage.removesuffix("_ns"), {"max": "largest"}.get(name, name), figures[name], "ns")

    def add_layers(self, layers: list[LayerFigures], peak: ceiling.Ceiling) -> None:
        """What `layers.measure` found, and the ceiling it was compared with."""
        self._layers = layers
        self._add("ceiling", "arithmetic", "", peak.flops_per_ns, "GFLOP/s")
        for size, rate in peak.bytes_per_ns.items():
            self._add("ceiling", "bandwidth", str(size), rate, "GB/s")
        for layer in layers:
            for name, value, unit in (
                ("time", layer.ns, "ns"),
                ("share", layer.share, "share"),
                ("flops", layer.flops, "operations"),
                ("bytes", layer.moved_bytes, "bytes"),
                ("intensity", layer.intensity, "per byte"),
            ):
                self._add("layers", name, layer.label, float(value), unit)
            self._add("layers", "floor", layer.label, layer.floor_ns, "ns")
            self._add("layers", "reached", layer.label, layer.reached, "share")
            if layer.access.startswith("stride"):
                self._add("layers", "strided", layer.label, float(layer.access.split()[2]), "bytes")
            elif layer.access:
                self._add("layers", "misaligned", f"{layer.label}; {layer.access}", 1.0, "yes or no")

    def add_caches(self, found: list[LayerCache]) -> None:
        """What `cachegrind.simulate` counted."""
        for layer in found:
            self._add("cache", "accesses", layer.label, layer.accesses, "count")
            self._add("cache", "D1 misses", layer.label, layer.first_misses, "count")
            self._add("cache", "last-level misses", layer.label, layer.last_misses, "count")
        self.instruments.append(Instrument("cache", True, "simulated by cachegrind on a build for AVX2, in processes of their own", 0.0))

    def no_caches(self, reason: str) -> None:
        """Caches were asked for and cannot be simulated."""
        self.instruments.append(Instrument("cache", False, reason))

    def record(self, *, model: str = "", workload: str = "", command: str = "", seed: int = 0) -> ProfileRecord:
        """The record, with its findings. Stacks in generated code are given to the layers that were added."""
        machine = host()
        environment = {
            "processor": f"{machine.cpu}, {machine.isa}, {len(machine.processors)} usable",
            "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        }
        shares = [(layer.label, layer.share) for layer in self._layers]
        named = stacks.attributed(self.raw_stacks, self._is_generated, shares)
        made = ProfileRecord(
            model,
            workload,
            command,
            seed,
            self._started.isoformat(timespec="seconds"),
            self.duration_s,
            environment,
            [],
            self.instruments,
            self.histograms,
            named,
            self.rows,
        )
        return dataclasses.replace(made, findings=find(made))

    def _is_generated(self, address: int) -> bool:
        """Whether an address without a file lies in the code of the engine's model."""
        ranges = self._engine.code_ranges() if self._engine is not None else []
        return any(low <= address < high for low, high in ranges)

    def _note_noise(self, noise: neighbours.Noise) -> None:
        for name, share in list(noise.others.items())[:KEPT_PROCESSES]:
            self._add("noise", "other process", name, share, "processors")
        self._add("noise", "others", "", noise.foreign, "processors")
        self._add("noise", "own", "", noise.own, "processors")
        self._add("noise", "stolen", "", noise.stolen, "share")
        self._add("noise", "throttled", "", float(noise.throttled), "count")

    def _note_locks(self) -> None:
        for waits in self.locks.waits:
            if waits.contended:
                self._add("contention", "lock wait", waits.name, waits.waited_ns, "ns")
                self._add("contention", "lock contended", waits.name, waits.contended, "count")
                self._add("contention", "lock longest", waits.name, waits.longest_ns, "ns")

    def _note_costs(self) -> None:
        whole = max(1e-9, self.duration_s)
        acquired = sum(waits.acquired for waits in self.locks.waits)
        self._cost("latency", "two integer timestamps a call on the path; histograms afterwards", None)
        self._cost("memory", "memory, run queue and GIL, ten looks a second", self._sampler.spent_ns / 1e9 / whole)
        self._cost("locks", f"{acquired} acquisitions watched", acquired * _lock_cost_ns() / 1e9 / whole if acquired else 0.0)
        self._cost("noise", "two scans of /proc, outside the run", 0.0)
        note = (
            "perf events of the processor and the kernel" if self._hardware else "perf events of the kernel; the processor shows none here"
        )
        self._cost("events", note, 0.0)
        self._cost("stacks", self._stacks.note or f"py-spy, {stacks.RATE} samples a second, native frames", None, not self._stacks.note)
        self._cost("layers", "a separate build, in a pass of its own", 0.0)

    def _cost(self, name: str, note: str, share: float | None, works: bool = True) -> None:
        on = name not in self.off and works
        self.instruments.append(Instrument(name, on, "switched off" if name in self.off else note, share if on else None))

    def _add(self, instrument: str, name: str, key: str, value: float, unit: str) -> None:
        self.rows.append(Row(self.process, instrument, name, key, -1, float(value), unit))


def _lock_cost_ns() -> float:
    """What watching adds to an acquisition that does not wait: measured, watched less plain."""
    import threading

    def taken(lock: Any) -> float:
        begin = time.perf_counter_ns()
        for _ in range(PROBES):
            with lock:
                pass
        return (time.perf_counter_ns() - begin) / PROBES

    plain = threading.Lock()
    return max(0.0, taken(Locks().watched(threading.Lock(), "probe")) - taken(plain))
