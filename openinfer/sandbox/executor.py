"""A model in a sandbox in the place of one in this process: what `Engine` asks of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

from openinfer.config import SandboxConfig
from openinfer.errors import InputError, SandboxError
from openinfer.ir.graph import Signature
from openinfer.runtime.executor import Price, Segment
from openinfer.runtime.program import Program
from openinfer.sandbox import lockdown
from openinfer.sandbox.calls import Call, Calls
from openinfer.sandbox.host import Source


@dataclasses.dataclass(frozen=True)
class RemoteContext:
    """One bound call: copies what does not lie in the ring, and crosses."""

    call: Callable[[], None]


class Remote:
    """Loads a model into a sandbox. `inputs` and `outputs` are its signature. Any thread may use it.

    `SandboxError` where `sandbox.mode = "strict"` and this system lacks a protection; what loading raises otherwise.
    """

    def __init__(self, source: Source, knobs: SandboxConfig) -> None:
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
        # What an engine asks of a model in its own process; the sandbox shows none of it.
        self.program: Program | None = None
        self.segments: tuple[Segment, ...] = ()
        self.refused: dict[str, str] = {}

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Checked arrays in, fresh arrays out."""
        return self._calls.run(arrays)

    def run_many(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Several requests in one crossing."""
        return self._calls.run_many(requests)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An array in shared memory."""
        return self._calls.empty(shape, dtype)

    def bind(self, arrays: Mapping[str, Any]) -> Call:
        """A call for checked arrays; `InputError` where outputs' shapes vary from call to call."""
        call = self._calls.bind(tuple(array.shape for array in arrays.values()), arrays)
        if call.outputs is None:
            raise InputError("bind needs a model that is compiled as a whole, for these shapes; use run")
        return call

    def context(self, call: Call, arrays: Mapping[str, Any], outputs: Mapping[str, Any]) -> RemoteContext:
        """`call` with the caller's arrays around it: those outside the ring are copied, the others used in place."""
        made = call.outputs or {}
        before = [(call.inputs[name], array) for name, array in arrays.items() if call.inputs[name] is not array]
        after = [(array, made[name]) for name, array in outputs.items() if made[name] is not array]
        if not before and not after:
            return RemoteContext(call)

        def copied() -> None:
            for inside, outside in before:
                inside[...] = outside
            call()
            for outside, inside in after:
                outside[...] = inside

        return RemoteContext(copied)

    def price(self, arrays: Mapping[str, Any]) -> list[Price]:
        """Refuses: `SandboxError`."""
        raise SandboxError("a model in a sandbox shows no segments; load it with sandbox.mode = 'off' to see their prices")

    def statistics(self) -> dict[str, Any]:
        """Mode, what the worker gave up, requests, workers replaced, and the time that the last replacement took, in ns."""
        client = self._calls.client
        return {
            "mode": self._mode,
            "given_up": client.protections(),
            "requests": client.requests,
            "replaced": client.replaced,
            "last_replacement_ns": client.restore_ns,
            "shared_bytes_free": self._calls.regions.free_bytes,
        }

    def close(self) -> None:
        """End the worker."""
        self._calls.client.close()
