"""OpenVINO in float32 on one thread: an infer request with its own tensors, the same with the refill, the compiled model called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openinfer.profiles.contenders._base import Contender, Held, fill, refill

from openinfer.errors import InputError, MissingExtraError
from openinfer.ir.graph import Array

# Without the hint it computes in bfloat16 where the machine can.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}


def contenders(model: str, first: Mapping[str, Array]) -> list[Contender]:
    """The sides of one compiled model. `MissingExtraError` where the package is absent, `InputError` where it refuses the model."""
    try:
        import openvino
    except ImportError:
        raise MissingExtraError("openvino is not installed; pip install 'openinfer[bench]'") from None
    try:
        compiled = openvino.Core().compile_model(model, "CPU", SETTINGS)
    except RuntimeError as error:
        raise InputError(f"OpenVINO refuses the model: {' '.join(str(error).split())[:200]}") from None
    mine = {name: array.copy() for name, array in first.items()}
    request = compiled.create_infer_request()
    for name, array in mine.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    held = Held()
    options: dict[str, Any] = {"share_inputs": True, "share_outputs": True}
    return [
        Contender("openvino request", "bound", lambda inputs: fill(mine, inputs), request.infer),
        Contender("openvino request refill", "refill", held.hold, refill(mine, held, request.infer)),
        Contender("openvino call", "run", held.hold, lambda: compiled(held.inputs, **options)),
    ]
