"""`strict` refuses what is not there; `process` reports it."""

from __future__ import annotations

from pathlib import Path

import models
import pytest
from sandbox_targets import open_prober

from openinfer.config import SandboxConfig
from openinfer.engine import load
from openinfer.errors import SandboxError
from openinfer.sandbox import lockdown
from openinfer.sandbox.calls import Calls
from openinfer.sandbox.host import Source

pytestmark = pytest.mark.skipif(bool(lockdown.missing()), reason=f"needs a kernel with {', '.join(lockdown.missing())}")


def _refuse() -> None:
    raise OSError(38, "Function not implemented")


def test_a_wall_that_the_kernel_refuses() -> None:
    given_up: list[str] = []
    lockdown._try("landlock", _refuse, False, given_up)
    assert given_up == []
    with pytest.raises(SandboxError, match=r"refuses landlock \(Function not implemented\)"):
        lockdown._try("landlock", _refuse, True, given_up)


def test_what_loads_a_model_can_neither_speak_nor_start_nor_write(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    source = Source("sandbox_targets:open_prober", {"folder": str(tmp_path / "victim")}, tmp_path / "cache")
    calls = Calls(source, SandboxConfig(mode="strict", shared_mb=4, spare=False))
    calls.client.close()
    with pytest.raises(RuntimeError, match="open a socket, start a program, write a file, change a mode"):
        open_prober(str(tmp_path / "victim"))


def test_strict_does_not_start_where_a_wall_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lockdown, "missing", lambda: ["landlock"])
    with pytest.raises(SandboxError, match=r"needs Linux|lacks landlock"):
        load(models.mlp(), {"sandbox": {"mode": "strict"}})
