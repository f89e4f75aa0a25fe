"""Stacks by py-spy, native frames among them, of the whole process or of the thread that holds the GIL. Generated code is given to its
layers, by the layer timer's shares, never left as one block.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openinfer.config import write_atomically

RATE = 50  # samples a second: each stops the process for about a millisecond
START_S = 5.0
MARK = "compiled model"
_ADDRESS = re.compile(r"^0x([0-9a-f]+) \(\?\)$")


def executable() -> str | None:
    """py-spy, beside this Python or on the path; `None` where it is not."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


class Stacks:
    """py-spy on this process between `start` and `stop`. Where it cannot run, `note` says why and there are no stacks."""

    def __init__(self, gil_only: bool = False, rate: int = RATE) -> None:
        self.note = ""
        self._gil_only, self._rate = gil_only, rate
        self._child: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Begin to sample, from when py-spy has attached."""
        found = executable()
        if found is None:
            self.note = "py-spy is not installed"
            return
        self._folder = tempfile.TemporaryDirectory(prefix="openinfer-stacks-")
        command = [found, "record", "--native", "--threads", "--format", "raw", "--rate", str(self._rate), "--duration", "86400"]
        command += ["--output", str(self._file), "--pid", str(os.getpid()), *(["--gil"] if self._gil_only else [])]
        with open(self._log, "wb") as log:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until = time.monotonic() + START_S
        while time.monotonic() < until and self._child.poll() is None and b"Press" not in self._log.read_bytes():
            time.sleep(0.01)
        if self._child.poll() is not None:
            self.note = f"py-spy cannot attach: {' '.join(self._log.read_text(errors='replace').split())[:160]}"
            self._child = None
            self._folder.cleanup()

    def stop(self) -> dict[str, int]:
        """Stack (frames from the outermost on, joined by ";") → samples; empty where there are none."""
        if self._child is None or self._folder is None:
            return {}
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(START_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        found: dict[str, int] = {}
        with contextlib.suppress(OSError):
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                stack, _, count = line.rpartition(" ")
                if stack and count.isdigit():
                    found[stack] = found.get(stack, 0) + int(count)
        self._folder.cleanup()
        if not found:
            self.note = "py-spy took no samples"
        return found

    @property
    def _file(self) -> Path:
        return self._path("raw.txt")

    @property
    def _log(self) -> Path:
        return self._path("log.txt")

    def _path(self, name: str) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / name


def attributed(stacks: Mapping[str, int], is_generated: Callable[[int], bool], shares: Sequence[tuple[str, float]]) -> dict[str, int]:
    """The stacks with the frames of generated code named: samples in a model's code are shared among its layers (`shares`, in call order,
    adding up to 1), so that counts add up to what they were. Without shares they are the model's.
    """
    plain: dict[str, int] = {}
    inside: dict[str, int] = {}
    for stack, count in stacks.items():
        frames = stack.split(";")
        places = [k for k, frame in enumerate(frames) if (found := _ADDRESS.match(frame)) and is_generated(int(found[1], 16))]
        if not places:
            plain[stack] = plain.get(stack, 0) + count
            continue
        outer = ";".join([*frames[: places[0]], MARK])
        inside[outer] = inside.get(outer, 0) + count
    for outer, count in inside.items():
        if not shares:
            plain[outer] = plain.get(outer, 0) + count
        for (label, _), part in zip(shares, _apportioned(count, [share for _, share in shares]), strict=True):
            if part:
                plain[f"{outer};{label}"] = plain.get(f"{outer};{label}", 0) + part
    return plain


def _apportioned(count: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that add up to `count`, by largest remainders."""
    whole = sum(shares)
    if not whole:
        return [count, *[0] * (len(shares) - 1)] if shares else []
    exact = [count * share / whole for share in shares]
    parts = [int(value) for value in exact]
    for k in sorted(range(len(exact)), key=lambda k: parts[k] - exact[k])[: count - sum(parts)]:
        parts[k] += 1
    return parts


def write_speedscope(stacks: Mapping[str, int], path: Path, name: str) -> None:
    """The stacks as a sampled profile that speedscope.app opens."""
    frames: dict[str, int] = {}
    samples = [[frames.setdefault(frame, len(frames)) for frame in stack.split(";")] for stack in stacks]
    weights = list(stacks.values())
    profile: dict[str, Any] = {"type": "sampled", "name": name, "unit": "none", "startValue": 0, "endValue": sum(weights)}
    document = {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "name": name,
        "exporter": "openinfer",
        "shared": {"frames": [{"name": frame} for frame in frames]},
        "profiles": [{**profile, "samples": samples, "weights": weights}],
    }
    write_atomically(path, json.dumps(document))
