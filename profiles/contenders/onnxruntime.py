"""ONNX Runtime on one thread: IOBinding, IOBinding with the refill, run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from openinfer.profiles.contenders._base import Contender, Held, fill, refill

from openinfer.errors import InputError, MissingExtraError
from openinfer.ir.graph import Array


def contenders(model: str, first: Mapping[str, Array]) -> list[Contender]:
    """The sides of one session. `MissingExtraError` where the package is absent, `InputError` where it refuses the model."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime is not installed; pip install 'openinfer[bench]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    mine = {name: array.copy() for name, array in first.items()}
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        answers = session.run(None, dict(first))
    except Exception as error:  # its exceptions have no base of their own
        raise InputError(f"ONNX Runtime refuses the model: {' '.join(str(error).split())[:200]}") from None
    results = dict(zip((output.name for output in session.get_outputs()), answers, strict=True))
    for name, value in results.items():
        if not isinstance(value, np.ndarray):
            raise InputError(f"ONNX Runtime cannot bind the output {name!r}, a {type(value).__name__}; it is compared on models of tensors")
    binding = session.io_binding()
    for name, array in mine.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in results.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    held = Held()

    def bound() -> None:
        session.run_with_iobinding(binding)

    return [
        Contender("onnxruntime iobinding", "bound", lambda inputs: fill(mine, inputs), bound),
        Contender("onnxruntime iobinding refill", "refill", held.hold, refill(mine, held, bound)),
        Contender("onnxruntime run", "run", held.hold, lambda: session.run(None, held.inputs)),
    ]
