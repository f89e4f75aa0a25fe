"""The description of the machine follows the processor that is asked for."""

import dataclasses
import math

import pytest

from openinfer import machine


@pytest.mark.parametrize(("cpu", "isa", "lanes"), [("haswell", "avx2", 8), ("znver4", "avx512", 16), ("x86-64", "generic", 4)])
def test_named_processors(monkeypatch: pytest.MonkeyPatch, cpu: str, isa: str, lanes: int) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", cpu)
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    described = machine.host.__wrapped__()
    assert (described.isa, described.lanes("float32")) == (isa, lanes)
    assert described.processors


@pytest.mark.parametrize(
    ("files", "membership", "quota"),
    [
        ({"cpu.max": "max 100000\n"}, "0::/\n", math.inf),
        ({"cpu.max": "max 100000\n", "pod/cpu.max": "150000 100000\n", "pod/box/cpu.max": "max 100000\n"}, "0::/pod/box\n", 1.5),
        ({"pod/cpu.max": "400000 100000\n", "pod/box/cpu.max": "200000 100000\n"}, "0::/pod/box\n", 2.0),
        ({"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/a\n0::/\n", 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/gone\n", math.inf),
        ({"cpu.max": "nonsense"}, "0::/\n", math.inf),
        ({}, None, math.inf),
    ],
)
def test_the_tightest_quota_of_the_control_groups_counts(tmp_path, files, membership, quota) -> None:
    for name, text in files.items():
        place = tmp_path / "cgroup" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    if membership is not None:
        (tmp_path / "membership").write_text(membership)
    assert machine.cpu_quota(tmp_path / "cgroup", tmp_path / "membership") == quota


@pytest.mark.parametrize(("quota", "processors"), [(math.inf, 4), (2.5, 3), (0.1, 1), (16.0, 4)])
def test_usable_processors_are_those_of_affinity_and_quota(monkeypatch, quota, processors) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda *_: quota)
    described = dataclasses.replace(machine.host(), processors=(0, 1, 2, 5))
    monkeypatch.setattr(machine, "host", lambda: described)
    assert machine.usable_processors.__wrapped__() == processors
