"""What the tests let a worker hold."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Target:
    """Answers, raises, hangs or dies on request."""

    def __init__(self, start: int) -> None:
        self.count = start

    def add(self, amount: int) -> dict[str, Any]:
        self.count += amount
        return {"count": self.count, "pid": os.getpid()}

    def double(self, x: NDArray[Any]) -> dict[str, Any]:
        return {"x": x * 2, "empty": np.empty((0, 3), np.int64)}

    def fail(self) -> None:
        raise RuntimeError("the reason")

    def die(self, number: int = signal.SIGKILL) -> None:
        print("last words", flush=True)
        os.kill(os.getpid(), number)

    def hang(self) -> None:
        signal.pause()


def open_target(start: int = 0) -> Target:
    return Target(start)


def refuse() -> Target:
    raise ValueError("not today")
