"""How requests of a trace fit a model: joined along a symbolic first dimension, or one at a time where the model fixes its shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from openinfer.engine import Engine
from openinfer.errors import WorkloadError
from openinfer.ir.graph import Signature
from openinfer.runtime.signature import describe


class Call(Protocol):
    """A call on arrays that stay where they are: refill `inputs`, call it, read `outputs`."""

    @property
    def inputs(self) -> dict[str, Any]:
        """The arrays that the call reads."""

    @property
    def outputs(self) -> dict[str, Any]:
        """The arrays that the call has written."""

    def __call__(self) -> None:
        """Answer what `inputs` hold."""


class RunCall:
    """A `Call` through `Engine.run`, for models that are not compiled as a whole."""

    def __init__(self, engine: Engine, inputs: dict[str, Any]) -> None:
        self._engine, self.inputs = engine, inputs
        self.outputs = engine.run(inputs)

    def __call__(self) -> None:
        """Answer what `inputs` hold."""
        self.outputs.update(self._engine.run(self.inputs))


def call_on(engine: Engine, inputs: dict[str, Any]) -> Call:
    """A bound call where the model is compiled as a whole, else one through `run`."""
    engine.run(inputs)  # finds what is not compiled for these shapes
    return RunCall(engine, inputs) if engine.statistics().fallback else engine.bind(inputs)


def batched(signatures: Sequence[Signature]) -> bool:
    """Whether requests may be joined: every input has a symbolic first dimension."""
    return all(bool(s.shape) and isinstance((s.shape or (0,))[0], str) for s in signatures)


def bindable(signatures: Sequence[Signature], inputs: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Arrays of their own for a call on `size` requests of a trace, holding its first ones.

    `inputs` has the request as first axis: rows that are joined where the model takes batches; otherwise whole arguments, one a request.
    `WorkloadError` where the trace's arrays are not the model's inputs.
    """
    names = [s.name for s in signatures]
    if set(inputs) != set(names):
        extra, missing = sorted(set(inputs) - set(names)), [name for name in names if name not in inputs]
        remedies = [f"{verb} {', '.join(which)}" for verb, which in (("drop", extra), ("add", missing)) if which]
        raise WorkloadError(
            f"found a trace of {', '.join(sorted(inputs))}; the model takes {', '.join(names)}: {' and '.join(remedies)} in the trace"
        )
    if batched(signatures):
        return {s.name: np.array(inputs[s.name][:size]) for s in signatures}
    bound = {}
    for s in signatures:
        shape, given = s.shape or (), inputs[s.name]
        fixed = tuple(1 if isinstance(d, str) else d for d in shape) if given.ndim <= len(shape) else given.shape[1:]
        if given[0].size != int(np.prod(fixed, dtype=np.int64)):
            raise WorkloadError(
                f"input {s.name!r}: found requests of shape {given.shape[1:]}; the model takes {describe(s)}: reshape the trace's column"
            )
        bound[s.name] = np.array(given[0]).reshape(fixed)
    return bound
