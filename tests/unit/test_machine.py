"""The description of the machine follows the processor that is asked for."""

import pytest

from openinfer import machine


@pytest.mark.parametrize(("cpu", "isa", "lanes"), [("haswell", "avx2", 8), ("znver4", "avx512", 16), ("x86-64", "generic", 4)])
def test_named_processors(monkeypatch: pytest.MonkeyPatch, cpu: str, isa: str, lanes: int) -> None:
    monkeypatch.setenv("NUMBA_CPU_NAME", cpu)
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    described = machine.host.__wrapped__()
    assert (described.isa, described.lanes("float32")) == (isa, lanes)
    assert described.processors
