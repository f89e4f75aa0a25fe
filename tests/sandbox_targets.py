"""What the tests let a sandbox serve: doubles its input, or goes wrong in the way that the first element names."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from openinfer.errors import InputError
from openinfer.ir.graph import Signature

HANG, CRASH, OVERRUN, RAISE = -1.0, -2.0, -3.0, -4.0


class Call:
    """A bound call."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.outputs = x, {"y": y}

    def __call__(self) -> None:
        first = self.x[0] if self.x.size else 0.0
        while first == HANG:
            time.sleep(10)
        if first == CRASH:
            ctypes.memset(8, 0, 1)
        if first == OVERRUN:
            raise MemoryError
        if first == RAISE:
            raise ValueError("the\nreason")
        self.outputs["y"][...] = self.x * 2


class Doubler:
    """The face of an engine. `dynamic` cannot be bound, and answers with as many rows as are positive."""

    inputs = (Signature("x", "float32", ("n",)),)
    outputs = (Signature("y", "float32", ("m",)),)

    def __init__(self, dynamic: bool) -> None:
        self._dynamic = dynamic

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any] | None = None) -> Call:
        if self._dynamic:
            raise InputError("use run")
        x = inputs["x"]
        return Call(x, outputs["y"] if outputs else np.empty_like(x))

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        x = inputs["x"]
        return {"y": np.repeat(x[x > 0], 100)}


def open_prober(folder: str) -> Doubler:
    """Loads as a hostile model's parser might: tries to speak, to start and to write; says in an error what it could."""
    attempts: dict[str, Callable[[], object]] = {
        "open a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "start a program": lambda: subprocess.run(["true"], check=True),
        "write a file": lambda: Path(folder, "written").write_text("x"),
        "change a mode": lambda: Path(folder).chmod(0o755),
    }
    could = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        could.append(name)
    if could:
        raise RuntimeError(f"could {', '.join(could)}")
    return Doubler(False)


def open_doubler(dynamic: bool = False) -> Doubler:
    return Doubler(dynamic)
