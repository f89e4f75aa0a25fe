"""The policy of GPU memory on simulated drivers."""

from __future__ import annotations

import dataclasses

import pytest

from openinfer.errors import GpuUnavailableError, MemoryBudgetError
from openinfer.memory.gpu_driver import choose, driver_branch, probe

GIB = 1 << 30


@dataclasses.dataclass
class SimulatedDriver:
    """A driver of a given branch and a device of 16 GiB."""

    version: int
    managed: int = 1
    concurrent: int = 1
    free: int = 12 * GIB

    def branch(self):
        return self.version

    def attribute(self, name):
        return {"ManagedMemory": self.managed, "ConcurrentManagedAccess": self.concurrent}[name]

    def memory(self):
        return self.free, 16 * GIB

    def name(self):
        return "simulated"


@pytest.mark.parametrize(
    ("driver", "kind", "reason"),
    [
        (SimulatedDriver(449), "pinned", "driver 449, older than 450"),
        (SimulatedDriver(450), "unified", "driver 450"),
        (SimulatedDriver(580), "unified", "driver 580"),
        (SimulatedDriver(450, managed=0, concurrent=0), "pinned", "without managed memory"),
        (SimulatedDriver(580, managed=0, concurrent=0), "pinned", "without managed memory"),
        (SimulatedDriver(580, concurrent=0), "pinned", "without concurrent access"),
    ],
)
def test_unified_memory_where_it_is_usable_and_pinned_copies_elsewhere(driver, kind, reason):
    policy = choose(probe(driver), "auto", 0)
    assert policy.kind == kind and reason in policy.reason


@pytest.mark.parametrize("budget", [0, 1 * GIB, 12 * GIB, 64 * GIB])
@pytest.mark.parametrize("wanted", ["auto", "unified", "pinned", "device"])
def test_never_more_than_is_free(budget, wanted):
    policy = choose(probe(SimulatedDriver(580)), wanted, budget)
    assert policy.limit_bytes == min(budget or 12 * GIB, 12 * GIB)
    assert policy.kind == ("unified" if wanted == "auto" else wanted)


def test_asking_for_unified_memory_where_there_is_none_names_the_reason():
    with pytest.raises(GpuUnavailableError, match=r'found driver 449, older than 450; set "auto", "pinned" or "device"'):
        choose(probe(SimulatedDriver(449)), "unified", 0)


def test_a_full_card_is_refused():
    with pytest.raises(MemoryBudgetError, match="no free memory"):
        choose(probe(SimulatedDriver(580, free=0)), "auto", 0)


@pytest.mark.parametrize(
    ("text", "branch"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  449.12  Mon Jun 1 00:00:00 UTC 2020", 449),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", 580),
    ],
)
def test_the_branch_is_what_the_kernel_module_says(tmp_path, text, branch):
    (tmp_path / "version").write_text(text)
    assert driver_branch(12040, tmp_path / "version") == branch


@pytest.mark.parametrize(("cuda", "branch"), [(10020, 440), (11000, 450), (12040, 550), (12070, 560), (13010, 580), (8000, 0)])
def test_without_a_kernel_module_the_supported_cuda_version_gives_the_oldest_branch(tmp_path, monkeypatch, cuda, branch):
    monkeypatch.setattr("openinfer.memory.gpu_driver._nvml", lambda: "")
    assert driver_branch(cuda, tmp_path / "absent") == branch
