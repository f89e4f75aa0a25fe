"""What a CUDA driver and device offer, and the kind of memory that follows from it. Reads facts only; `gpu_pools.py` acts on them."""

from __future__ import annotations

import ctypes
import dataclasses
import re
from pathlib import Path
from typing import Literal, Protocol

from openinfer.errors import GpuUnavailableError, MemoryBudgetError

Kind = Literal["unified", "pinned", "device"]

OLDEST_UNIFIED = 450  # the driver branch of CUDA 11.0, the first with dependable managed memory on Linux
PROC = Path("/proc/driver/nvidia/version")
# CUDA version that a driver supports → the oldest branch that does (NVIDIA's CUDA release notes, table 3).
BRANCHES = (
    (13000, 580), (12090, 575), (12080, 570), (12060, 560), (12050, 555), (12040, 550), (12030, 545), (12020, 535), (12010, 530),
    (12000, 525), (11080, 520), (11070, 515), (11060, 510), (11050, 495), (11040, 470), (11030, 465), (11020, 460), (11010, 455),
    (11000, 450), (10020, 440), (10010, 418), (10000, 410), (9020, 396), (9010, 390), (9000, 384),
)  # fmt: skip


class Driver(Protocol):
    """The questions that are asked of a driver; CuPy answers in production, a simulation in tests."""

    def branch(self) -> int:
        """The first number of the driver's version: 450, 580."""

    def attribute(self, name: str) -> int:
        """A device attribute by CUDA's name, such as `ManagedMemory`."""

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device."""

    def name(self) -> str:
        """The device's name."""


@dataclasses.dataclass(frozen=True)
class Device:
    """One probe of a driver and its device. Bytes."""

    name: str
    driver: int
    managed: bool
    concurrent_managed: bool
    free_bytes: int
    total_bytes: int


@dataclasses.dataclass(frozen=True)
class Policy:
    """The memory that arrays of the device live in, the most that the pool may take, and why."""

    kind: Kind
    limit_bytes: int
    reason: str


def probe(driver: Driver) -> Device:
    """Ask the driver once."""
    free, total = driver.memory()
    managed = bool(driver.attribute("ManagedMemory"))
    return Device(driver.name(), driver.branch(), managed, bool(driver.attribute("ConcurrentManagedAccess")), free, total)


def choose(device: Device, wanted: str, budget_bytes: int) -> Policy:
    """The policy for `memory.gpu_pool` = `wanted`; `auto` takes unified memory where it is usable, pinned staging elsewhere.

    The limit is the budget, or the free memory where that is less: managed memory beyond it would be paged over the bus without a word.
    Raises `GpuUnavailableError` where `unified` is asked for and not usable, `MemoryBudgetError` where nothing is free.
    """
    missing = _missing(device)
    if wanted == "unified" and missing:
        raise GpuUnavailableError(f'memory.gpu_pool = "unified": found {missing}; set "auto", "pinned" or "device"')
    if device.free_bytes <= 0:
        raise MemoryBudgetError(f"{device.name}: found no free memory of {device.total_bytes} bytes; end what else runs on the GPU")
    limit = min(budget_bytes or device.free_bytes, device.free_bytes)
    if wanted == "auto":
        if missing:
            return Policy("pinned", limit, f"{missing}: device memory, with copies through pinned buffers")
        return Policy("unified", limit, f"driver {device.driver} offers managed memory with concurrent access")
    kind: Kind = "unified" if wanted == "unified" else "pinned" if wanted == "pinned" else "device"
    return Policy(kind, limit, "asked for by memory.gpu_pool")


def _missing(device: Device) -> str:
    """What keeps the device from unified memory; empty where it is usable."""
    if device.driver < OLDEST_UNIFIED:
        return f"driver {device.driver}, older than {OLDEST_UNIFIED}"
    if not device.managed:
        return "a device without managed memory"
    if not device.concurrent_managed:
        return "a device without concurrent access to managed memory"
    return ""


def driver_branch(cuda_version: int, proc: Path = PROC) -> int:
    """The driver's branch: as its kernel module says, as NVML says, or the oldest that supports `cuda_version` (12040 is 12.4)."""
    for text in (_read(proc), _nvml()):
        if found := re.search(r"\b(\d{3})\.\d+", text):
            return int(found[1])
    return next((branch for cuda, branch in BRANCHES if cuda_version >= cuda), 0)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _nvml() -> str:
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        text = ctypes.create_string_buffer(96)
        good = library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, 96) == 0
        return text.value.decode("ascii", "replace") if good else ""
    except (OSError, AttributeError):
        return ""
