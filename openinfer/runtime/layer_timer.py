"""Times every layer of a compiled model, in a build of its own that reads the clock between steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from openinfer.codegen.lowering import Refused
from openinfer.errors import InputError
from openinfer.ir.graph import Array, TensorType
from openinfer.kernels.cpu.control_block import TABLE_STAMPS
from openinfer.memory.arena import empty
from openinfer.ops._base import Packed, Scratch, Value
from openinfer.runtime.bound_call import BoundCall, bound_natively
from openinfer.runtime.executor import address
from openinfer.runtime.program import Program


@dataclasses.dataclass(frozen=True)
class Layer:
    """One step: its label (operator and node), its kernel, and the tensors that it reads and writes. `read_bytes` and `written_bytes` count
    each of them once; `constants` are the shapes of the model's constants that the node names, packed or not.
    """

    label: str
    op: str
    node: str
    kernel: str
    statics: Mapping[str, Any]
    sizes: tuple[int, ...]
    reads: tuple[TensorType, ...]
    writes: tuple[TensorType, ...]
    constants: tuple[tuple[int, ...], ...]
    read_bytes: int
    written_bytes: int


def bound_stamped(program: Program | None, arrays: dict[str, Any], rows: Any) -> BoundCall:
    """See `Engine.bind_stamped`; `arrays` are inputs that were checked."""
    whole, types = _whole(program), _types(arrays)
    if not (isinstance(rows, np.ndarray) and rows.dtype == np.int64 and rows.ndim == 2 and rows.shape[1] == 2 and len(rows)):
        raise InputError("rows: allowed is an int64 array of shape [n, 2] with at least one row; pass np.zeros((n, 2), np.int64)")
    if not (rows.flags.c_contiguous and rows.flags.writeable):
        raise InputError("rows: found an array that is not C-contiguous or cannot be written; pass np.zeros((n, 2), np.int64)")
    try:
        instance = whole.instance(types)
    except Refused as refusal:
        raise InputError(f"{refusal.node.op} {refusal.node.key!r} is not compiled for these shapes: {refusal.reason}; use run") from None
    outputs = {name: np.empty(kind.shape, kind.dtype) for name, kind in instance.outputs}
    context = instance.stamped(rows)
    address(context.table, instance, arrays, outputs)
    return bound_natively(context.call, arrays, outputs)


def _whole(program: Program | None) -> Program:
    if program is None:
        raise InputError("timing needs a model that is compiled as a whole, in this process; `openinfer check` says what is not")
    return program


def _types(arrays: Mapping[str, Any]) -> tuple[TensorType, ...]:
    return tuple(TensorType(array.dtype.name, array.shape) for array in arrays.values())


class LayerTimer:
    """`call` runs the model once on the given arrays; `durations_ns()` then holds what each of `layers` took. One thread at a time."""

    def __init__(self, program: Program | None, arrays: Mapping[str, Any]) -> None:
        """`arrays` are inputs that were checked. `InputError` where there is no whole program, or it is refused for these shapes."""
        program = _whole(program)
        try:
            instance, lowered, self.variant = program.timed(_types(arrays))
        except Refused as refusal:
            raise InputError(f"{refusal.node.op} {refusal.node.key!r} is not compiled for these shapes: {refusal.reason}") from None
        nodes = {node.key: node for node in program.graph.nodes}
        constants = program.graph.constants
        self.layers: list[Layer] = []
        for step, label in zip(lowered.steps, lowered.labels, strict=True):
            op, _, key = label.partition(" ")
            node = nodes.get(key)
            known = tuple(tuple(np.shape(constants[name])) for name in (node.reads if node is not None else ()) if name in constants)
            values = [operand if isinstance(operand, Value) else None for operand in step.operands]
            reads = tuple(v.type for i, v in enumerate(values) if v is not None and i not in step.writes)
            writes = tuple(v.type for i, v in enumerate(values) if v is not None and i in step.writes)
            packed = sum(program.packed_bytes(operand.key) for operand in step.operands if isinstance(operand, Packed))
            own = [operand.size_bytes for operand in step.operands if isinstance(operand, Scratch)]
            read, written = sum(kind.size_bytes for kind in reads) + packed, sum(kind.size_bytes for kind in writes) + sum(own)
            self.layers.append(Layer(label, op, key, step.kernel, step.statics, step.sizes, reads, writes, known, read, written))
        threads = max(1, program.threads)
        self._stamps: Array = empty((threads, len(self.layers) + 1), "int64")
        self._stamps[:] = 0
        self.inputs = dict(arrays)
        self.outputs = {name: np.empty(kind.shape, kind.dtype) for name, kind in instance.outputs}
        context = instance.context()
        context.table[TABLE_STAMPS] = self._stamps.__array_interface__["data"][0]
        address(context.table, instance, self.inputs, self.outputs)
        self._context, self._instance = context, instance
        self.call = context.call

    @property
    def table(self) -> Array:
        """The words that the code reads."""
        return self._context.table

    def memory(self) -> list[tuple[int, int]]:
        """Address and size of every region that the table points to."""
        arrays = [*self.inputs.values(), *self.outputs.values()]
        return [*self._instance.memory(self._context), *((array.ctypes.data, array.nbytes) for array in arrays)]

    def durations_ns(self) -> Array:
        """What each layer took in the last call, as int64: on the calling thread, barriers and one reading of the clock included."""
        durations: Array = np.diff(self._stamps[0])
        return durations

    def stamps_ns(self) -> Array:
        """When the last call began and each layer ended, on the clock of `time.perf_counter_ns`."""
        stamps: Array = self._stamps[0].copy()
        return stamps
