"""`BoundCall`: what `Engine.bind` gives, whatever the backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from openinfer.errors import InputError


class BoundCall:
    """A call whose addresses are fixed: refill the arrays in `inputs`, call it with nothing, read `outputs`. One thread at a time."""

    __slots__ = ("_call", "inputs", "outputs")

    inputs: dict[str, Any]
    outputs: dict[str, Any]

    def __init__(self, call: Callable[[], None], inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
        self._call, self.inputs, self.outputs = call, inputs, outputs

    def __call__(self) -> None:
        self._call()


def bound_natively(call: Callable[[], None], inputs: dict[str, Any], outputs: dict[str, Any]) -> BoundCall:
    """A `BoundCall` whose type calls the native entry itself: a builtin in the type's `__call__` takes no `self` and costs no Python
    frame.
    """
    kind = type("BoundCall", (BoundCall,), {"__slots__": (), "__call__": call, "__doc__": BoundCall.__doc__})
    bound: BoundCall = kind(call, inputs, outputs)
    return bound


def placed(made: Mapping[str, Any], given: Mapping[str, Any] | None, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a bound call: those that the caller gives, checked, in the place of those that were made."""
    outputs = dict(made)
    for name, array in (given or {}).items():
        if name not in outputs:
            raise InputError(f"unknown output {name!r}; allowed: {', '.join(outputs)}")
        wanted = outputs[name]
        usable = isinstance(array, np.ndarray) and array.dtype == wanted.dtype and array.shape == wanted.shape
        if not usable or not (array.flags.c_contiguous and array.flags.writeable and array.flags.aligned):
            found = f"{array.dtype}{array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise InputError(f"output {name!r}: found {found}; allowed: a writable, C-contiguous {wanted.dtype}{wanted.shape}")
        if any(np.may_share_memory(array, other) for other in (*inputs.values(), *(a for n, a in outputs.items() if n != name))):
            raise InputError(f"output {name!r} shares memory with another array of the call; give it memory of its own")
        outputs[name] = array
    return outputs
