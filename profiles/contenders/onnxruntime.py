"""ONNX Runtime on one thread: IOBinding, IOBinding with the refill, run."""

from __future__ import annotations

from collections.abc import Mapping

from openinfer.profiles.contenders._base import Contender, Held, fill, refill

from openinfer.errors import MissingExtraError
from openinfer.ir.graph import Array


def contenders(model: str, first: Mapping[str, Array]) -> list[Contender]:
    """The sides of one session. `MissingExtraError` where the package is absent."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime is not installed; pip install 'openinfer[bench]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    mine = {name: array.copy() for name, array in first.items()}
    results = dict(zip((output.name for output in session.get_outputs()), session.run(None, dict(first)), strict=True))
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
