"""What this machine offers to the compiler: vector width, registers, caches, processors. Read once."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
from pathlib import Path

import llvmlite.binding as llvm


@dataclasses.dataclass(frozen=True)
class Machine:
    """The compilation target and the host around it. Sizes in bytes."""

    cpu: str
    features: str
    isa: str
    vector_bytes: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    processors: tuple[int, ...]

    def lanes(self, dtype: str) -> int:
        """Elements of `dtype` in one vector."""
        return self.vector_bytes // {"float64": 8, "int64": 8, "float32": 4, "int32": 4}[dtype]

    @property
    def fingerprint(self) -> str:
        """Short hash of what shapes compiled code and timings: CPU, features, caches, processors."""
        text = f"{self.cpu}|{self.features}|{self.l1_bytes}|{self.l2_bytes}|{self.l3_bytes}|{len(self.processors)}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def host() -> Machine:
    """This machine, or the one that `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` name."""
    cpu = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    named = "NUMBA_CPU_NAME" in os.environ
    features = os.environ.get("NUMBA_CPU_FEATURES") or ("" if named else llvm.get_host_cpu_features().flatten())
    isa, vector_bytes, registers = _vector_unit(cpu, features)
    return Machine(
        cpu=cpu,
        features=features,
        isa=isa,
        vector_bytes=vector_bytes,
        vector_registers=registers,
        l1_bytes=_cache_bytes(1, 32 << 10),
        l2_bytes=_cache_bytes(2, 512 << 10),
        l3_bytes=_cache_bytes(3, 8 << 20),
        processors=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(os.cpu_count() or 1)),
    )


_AVX512_CPUS = ("skylake-avx512", "cascadelake", "cooperlake", "icelake", "sapphirerapids", "znver4", "znver5")
_AVX2_CPUS = ("haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "alderlake", "x86-64-v3")


def _vector_unit(cpu: str, features: str) -> tuple[str, int, int]:
    has = set(features.split(","))
    if "+avx512f" in has or (not features and cpu.startswith(_AVX512_CPUS)):
        return "avx512", 64, 32
    if ("+avx2" in has and "+fma" in has) or (not features and cpu.startswith(_AVX2_CPUS)):
        return "avx2", 32, 16
    return "generic", 16, 16


@functools.cache
def usable_processors() -> int:
    """Processors that this process can keep busy: its affinity's, or what its control groups' quota pays for where that is less, rounded
    up.
    """
    quota = cpu_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return max(1, math.ceil(min(len(host().processors), quota)))


def cpu_quota(mount: Path, membership: Path) -> float:
    """Processors that the control groups of this process allow, the tightest of its own and those above it; infinite where none limits.

    `mount` is where control groups are mounted, `membership` lists those of the process (cgroups(7)). Version 2 and version 1.
    """
    quota = math.inf
    for base, group in _cpu_groups(mount, membership):
        for place in (base / group, *(base / group).parents):
            if not place.is_relative_to(base):
                break
            try:
                if (place / "cpu.max").exists():
                    limit, period = (place / "cpu.max").read_text().split()
                else:
                    limit, period = (place / "cpu.cfs_quota_us").read_text(), (place / "cpu.cfs_period_us").read_text()
                if limit != "max" and int(limit) > 0:
                    quota = min(quota, int(limit) / int(period))
            except (OSError, ValueError):
                continue
    return quota


def _cpu_groups(mount: Path, membership: Path) -> list[tuple[Path, str]]:
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    groups: list[tuple[Path, str]] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            groups.append((mount, group.lstrip("/")))
        elif "cpu" in controllers.split(","):
            groups.append((mount / controllers if (mount / controllers).exists() else mount / "cpu", group.lstrip("/")))
    return groups


@functools.cache
def memory_bytes() -> int:
    """Memory that this process can have: the machine's, or its control group's limit where that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path(limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def _cache_bytes(level: int, otherwise: int) -> int:
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if int((index / "level").read_text()) == level and (index / "type").read_text().strip() != "Instruction":
                size = (index / "size").read_text().strip()
                return int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
        except (OSError, ValueError, KeyError):
            continue
    return otherwise
