"""The model in a sandbox."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from openinfer.config import Config
from openinfer.errors import InputError, SandboxError
from openinfer.ir.graph import Signature
from openinfer.runtime.backend import FastPath, Statistics, no_fast_path
from openinfer.runtime.bound_call import BoundCall, placed
from openinfer.runtime.executor import Price
from openinfer.sandbox import lockdown
from openinfer.sandbox.calls import Calls
from openinfer.sandbox.host import Source


class SandboxBackend:
    """Loads a model into a sandbox of its own.

    `SandboxError` where `sandbox.mode = "strict"` and this system lacks a protection; what loading raises otherwise.
    """

    def __init__(self, source: Source, config: Config) -> None:
        knobs = config.sandbox
        if sys.platform != "linux":
            raise SandboxError(f"found {sys.platform}; a sandbox needs Linux; use sandbox.mode = 'off'")
        absent = lockdown.missing()
        if knobs.mode == "strict" and absent:
            raise SandboxError(
                f"this system lacks {', '.join(absent)}; sandbox.mode = 'strict' needs {', '.join(lockdown.REQUIRED)}: use a kernel that "
                "has them, or mode = 'process', which takes what there is"
            )
        self._calls = Calls(source, knobs)
        self._mode = knobs.mode
        self.inputs: tuple[Signature, ...] = self._calls.client.description.inputs
        self.outputs: tuple[Signature, ...] = self._calls.client.description.outputs
        self.fast: FastPath = no_fast_path
        self._name = "cpu" if config.engine.backend == "cpu" else "cpu: a locked-down process may not talk to a driver"

    @property
    def program(self) -> None:
        """The sandbox does not show it."""
        return None

    def run(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Fresh outputs by name."""
        return self._calls.run(arrays)

    def run_many(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several requests in one crossing."""
        return self._calls.run_many(list(requests))

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An array in shared memory."""
        return self._calls.empty(shape, dtype)

    def bind(self, arrays: dict[str, Any], outputs: Mapping[str, Any] | None) -> BoundCall:
        """A call that copies what does not lie in the ring, and crosses. `InputError` where outputs' shapes vary from call to call."""
        crossing = self._calls.bind(tuple(array.shape for array in arrays.values()), arrays)
        if crossing.outputs is None:
            raise InputError("bind needs a model that is compiled as a whole, for these shapes; use run")
        inside = crossing.outputs
        made = placed(inside, outputs, arrays)
        before = [(crossing.inputs[name], array) for name, array in arrays.items() if crossing.inputs[name] is not array]
        after = [(array, inside[name]) for name, array in made.items() if inside[name] is not array]
        if not before and not after:
            return BoundCall(crossing, arrays, made)

        announce = self._calls.client.announce

        def copied() -> None:
            announce()
            for target, array in before:
                target[...] = array
            crossing()
            for array, source in after:
                array[...] = source

        return BoundCall(copied, arrays, made)

    def price(self, arrays: dict[str, Any]) -> list[Price]:
        """Refuses: `SandboxError`."""
        raise SandboxError("a model in a sandbox shows no segments; load it with sandbox.mode = 'off' to see their prices")

    def sources(self) -> list[str]:
        """None: the sandbox does not show them."""
        return []

    def start_threads(self) -> None:
        """The worker starts its own."""

    def statistics(self) -> Statistics:
        """Mode, what the worker gave up, requests, workers replaced, and the time that the last replacement took, in ns."""
        client = self._calls.client
        found = {
            "mode": self._mode,
            "given_up": client.protections(),
            "requests": client.requests,
            "replaced": client.replaced,
            "last_replacement_ns": client.restore_ns,
            "shared_bytes_free": self._calls.regions.free_bytes,
        }
        return Statistics(backend=self._name, sandbox=found)

    def close(self) -> None:
        """End the worker."""
        self._calls.client.close()
