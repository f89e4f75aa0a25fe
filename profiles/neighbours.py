"""The noise of the machine: processors that other processes use, time stolen by the hypervisor, throttling. From /proc and /sys, twice."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclasses.dataclass(frozen=True)
class Noise:
    """Of a stretch of time: processors kept busy by each other process ("name, process 12"), by the whole machine and by this process's
    family; share stolen; throttled periods of the control group and thermal events.
    """

    others: dict[str, float]
    machine: float
    own: float
    stolen: float
    throttled: int

    @property
    def foreign(self) -> float:
        """Processors kept busy by others, those among them that came and went."""
        return max(0.0, self.machine - self.own)


@dataclasses.dataclass(frozen=True)
class Scan:
    """Counters at one moment. A scan reads one file a process: about 20 µs each."""

    at_s: float
    ticks: dict[int, tuple[str, int, int]]
    busy: int
    stolen: int
    total: int
    throttled: int


def scan(root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> Scan:
    """All processes now; empty where the system has no /proc."""
    ticks = {}
    for folder in sorted((root / "proc").glob("[0-9]*")):
        try:
            head, _, tail = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            fields = tail.split()
            ticks[int(folder.name)] = (head.partition("(")[2], int(fields[1]), int(fields[11]) + int(fields[12]))
        except (OSError, ValueError, IndexError):
            continue
    try:
        counts = [int(field) for field in (root / "proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        counts = [0] * 8
    busy = sum(counts) - counts[3] - counts[4] - counts[7]
    return Scan(clock(), ticks, busy, counts[7], sum(counts), _throttled(root))


def between(before: Scan, after: Scan, own: int) -> Noise:
    """What happened between two scans; `own` is the process whose family is not counted among the others."""
    passed = max(1e-9, after.at_s - before.at_s) * TICKS
    family = _family(after, own) | _family(before, own)
    used = {pid: after.ticks[pid][2] - (before.ticks[pid][2] if pid in before.ticks else 0) for pid in after.ticks}
    others = {f"{after.ticks[pid][0]}, process {pid}": count / passed for pid, count in used.items() if pid not in family and count > 0}
    total = max(1, after.total - before.total)
    return Noise(
        dict(sorted(others.items(), key=lambda item: -item[1])),
        (after.busy - before.busy) / passed,
        sum(count for pid, count in used.items() if pid in family) / passed,
        (after.stolen - before.stolen) / total,
        after.throttled - before.throttled,
    )


def _family(found: Scan, own: int) -> set[int]:
    family = {own}
    while True:
        more = {pid for pid, (_, parent, _) in found.ticks.items() if parent in family} | family
        if more == family:
            return family
        family = more


def _throttled(root: Path) -> int:
    """Periods in which the control group was throttled, and thermal events of the processors."""
    count = 0
    for path in [
        root / "sys/fs/cgroup/cpu.stat",
        *(root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count"),
    ]:
        try:
            words = path.read_text(encoding="ascii").split()
            count += int(words[words.index("nr_throttled") + 1] if "nr_throttled" in words else words[0] if len(words) == 1 else 0)
        except (OSError, ValueError, IndexError):
            continue
    return count
