"""Where a model runs: in this process (`native_backend.py`), on a GPU (`gpu_backend.py`), in a sandbox (`openinfer/sandbox/backend.py`).

`Engine` checks requests against the signature and asks its backend for everything else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from openinfer.ir.graph import Signature
from openinfer.memory.pool import PoolStatistics
from openinfer.runtime.bound_call import BoundCall
from openinfer.runtime.executor import Price
from openinfer.runtime.program import Program

FastPath = Callable[[Any], dict[str, Any] | None]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What an engine holds and has done. Bytes and seconds. What a backend has nothing of is empty."""

    bound_calls: int = 0
    contexts: int = 0
    shapes: int = 0
    arena_bytes: int = 0
    plan_gap: float = 1.0
    plan_s: float = 0.0
    compiled: int = 0
    loaded_from_cache: int = 0
    compile_s: float = 0.0
    load_s: float = 0.0
    fallback: dict[str, str] = dataclasses.field(default_factory=dict)
    pool: dict[str, Any] = dataclasses.field(default_factory=dict)
    scheduler: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    sandbox: dict[str, Any] = dataclasses.field(default_factory=dict)
    backend: str = "cpu"
    device: dict[str, Any] = dataclasses.field(default_factory=dict)
    memory: PoolStatistics | None = None


class Backend(Protocol):
    """A loaded model. Any thread may use it. `arrays` are inputs that were checked: all there, C-contiguous, of the model's types."""

    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    # Answers unchecked inputs of the kind seen last; `None` for any other, which `run` then answers. Exchanged as requests come.
    fast: FastPath

    @property
    def program(self) -> Program | None:
        """The native program that is the whole model, for callers that join requests; `None` where there is no such."""

    def run(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Fresh outputs by name."""

    def run_many(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Fresh outputs of each request, in order. The first that fails raises."""

    def bind(self, arrays: dict[str, Any], outputs: Mapping[str, Any] | None) -> BoundCall:
        """A call that reads and writes these arrays in place; outputs that are not given are made. `InputError` where that cannot be."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An uninitialised array where calls read and write fastest."""

    def price(self, arrays: dict[str, Any]) -> list[Price]:
        """Measured time of every part, for these inputs."""

    def sources(self) -> list[str]:
        """Generated programs, for reading."""

    def start_threads(self) -> None:
        """Start now what the first call would start."""

    def statistics(self) -> Statistics:
        """Counters since load, but for what the engine itself counts."""

    def close(self) -> None:
        """Let go of what other processes and devices hold; `fast` answers nothing from now on. Bound calls keep their own memory."""


def no_fast_path(inputs: Any) -> None:
    """Before the first request, and after the last."""
    return None


def one_by_one(run: Callable[[dict[str, Any]], dict[str, Any]], requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`Backend.run_many` where nothing is gained by several requests at once."""
    return [run(arrays) for arrays in requests]
