"""A device of the GPU executor whose arrays are NumPy's; generated kernels are compiled by the host's C compiler."""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# `a != a` asks for NaN, and is always false of integers.
FLAGS = ["-std=c99", "-O1", "-ffp-contract=off", "-Wall", "-Werror", "-Wno-unused-function", "-Wno-tautological-compare"]
FLAGS += ["-shared", "-fPIC"]
COMPILER = shutil.which("gcc") or shutil.which("cc")


class HostDevice:
    """Counts what would be copies."""

    def __init__(self) -> None:
        self.xp = np
        self.uploads = self.downloads = self.launches = 0
        self.sources: list[str] = []

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        yield

    def upload(self, array: np.ndarray) -> np.ndarray:
        self.uploads += 1
        return array.copy()

    def download(self, array: Any) -> np.ndarray:
        self.downloads += 1
        return np.array(array)

    def launch(self, source: str, name: str, elements: int, arguments: Sequence[Any]) -> None:
        self.launches += 1
        self.sources.append(source)
        call_c(source, name, arguments)

    def statistics(self) -> dict[str, Any]:
        return {"device": "host", "uploads": self.uploads, "downloads": self.downloads}

    def close(self) -> None:
        pass


_libraries: dict[str, ctypes.CDLL] = {}


def call_c(source: str, name: str, arguments: Sequence[Any]) -> None:
    """Compile the kernel's text as C and run its loop over NumPy arrays and numbers."""
    if source not in _libraries:
        with tempfile.TemporaryDirectory() as folder:
            text, library = Path(folder) / "kernel.c", Path(folder) / "kernel.so"
            text.write_text(source)
            subprocess.run([str(COMPILER), *FLAGS, "-o", str(library), str(text), "-lm"], check=True, capture_output=True)
            _libraries[source] = ctypes.CDLL(str(library))
    given = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_longlong(int(a)) for a in arguments]
    getattr(_libraries[source], name)(*given)
