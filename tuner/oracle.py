"""What every answer is compared with: the model in float64, evaluated by `onnx.reference`, request by request of a trace."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.workloads.requests import batched, bindable

from openinfer.errors import StudyError
from openinfer.frontend.float64 import Reference, discrepancy, widen
from openinfer.ir.graph import Array, Signature

CHUNK = 256  # requests evaluated together
APART = 1e-9  # how far float64 answers may differ between requests alone and together


def expected_outputs(model: Any, signatures: Sequence[Signature], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name, the request on the first axis.

    `StudyError` where an output is no array of numbers, changes its shape from request to request, or mixes the requests of a batch.
    """
    reference, count = Reference(widen(model)), len(next(iter(inputs.values())))
    if not batched(signatures):
        return _stacked([_numbers(reference(bindable(signatures, _rows(inputs, i, i + 1), 1))) for i in range(count)])
    chunks = [_numbers(reference(_rows(inputs, start, start + CHUNK))) for start in range(0, count, CHUNK)]
    outputs = {name: np.concatenate([np.atleast_1d(chunk[name]) for chunk in chunks]) for name in chunks[0]}
    for name, value in outputs.items():
        if len(value) != count:
            raise StudyError(f"output {name!r} has {len(value)} rows for {count} requests; tuning needs one row a request in every output")
    for row in {0, count - 1}:
        for name, alone in _numbers(reference(_rows(inputs, row, row + 1))).items():
            if discrepancy(np.atleast_1d(alone), outputs[name][row : row + 1]) > APART:
                raise StudyError(f"output {name!r} of a request depends on the others in its batch; tuning needs requests that stand alone")
    return outputs


def seconds_per_request(model: Any, requests: Mapping[str, Array], count: int) -> float:
    """What the oracle takes for one of `count` requests evaluated together."""
    reference = Reference(widen(model))
    reference(requests)  # operators are set up on their first call
    begin = time.perf_counter()
    reference(requests)
    return (time.perf_counter() - begin) / count


def _numbers(outputs: Mapping[str, Any]) -> dict[str, Array]:
    for name, value in outputs.items():
        if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind not in "fiub":
            found = value.dtype.name if isinstance(value, (np.ndarray, np.generic)) else type(value).__name__
            raise StudyError(f"output {name!r} is {found}; tuning compares numbers: remove that output from the model")
    return {name: np.asarray(value) for name, value in outputs.items()}


def _stacked(each: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    for index, one in enumerate(each):
        for name, value in one.items():
            if value.shape != each[0][name].shape:
                raise StudyError(
                    f"output {name!r} has shape {each[0][name].shape} for request 0 and {value.shape} for request {index}; "
                    "tuning needs one shape: remove that output from the model, or pad it"
                )
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def _rows(inputs: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    return {name: array[start:stop] for name, array in inputs.items()}
