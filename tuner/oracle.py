"""What every answer is compared with: the model in float64, evaluated by `onnx.reference`, request by request of a trace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.workloads.requests import batched, bindable

from openinfer.errors import StudyError
from openinfer.frontend.float64 import Reference, widen
from openinfer.ir.graph import Array, Signature

CHUNK = 256  # requests evaluated together


def expected_outputs(model: Any, signatures: Sequence[Signature], inputs: Mapping[str, Array]) -> dict[str, Any]:
    """Outputs by name, the request on the first axis. `StudyError` where a model that joins requests does not keep them apart."""
    reference, count = Reference(widen(model)), len(next(iter(inputs.values())))
    if not batched(signatures):
        each = [reference(bindable(signatures, _rows(inputs, i, i + 1), 1)) for i in range(count)]
        return {name: np.stack([np.asarray(one[name]) for one in each]) for name in each[0]}
    chunks = [reference(_rows(inputs, start, start + CHUNK)) for start in range(0, count, CHUNK)]
    outputs = {name: np.concatenate([np.atleast_1d(chunk[name]) for chunk in chunks]) for name in chunks[0]}
    for name, value in outputs.items():
        if len(value) != count:
            raise StudyError(f"output {name!r} has {len(value)} rows for {count} requests; tuning needs one row a request in every output")
    return outputs


def seconds_per_request(model: Any, requests: Mapping[str, Array], count: int) -> float:
    """What the oracle takes for one of `count` requests evaluated together."""
    reference = Reference(widen(model))
    reference(requests)  # operators are set up on their first call
    begin = time.perf_counter()
    reference(requests)
    return (time.perf_counter() - begin) / count


def _rows(inputs: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: array[start:stop] for name, array in inputs.items()}
