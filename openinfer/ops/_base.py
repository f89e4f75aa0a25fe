"""What an operator family provides: `infer` for shapes and `lower` for code, both over concrete shapes.

    infer(node, inputs) -> [TensorType, ...]                       one per output of the node
    lower(node, inputs, outputs, target) -> [Step | Alias, ...]    how to compute it, as data

A model with symbolic dimensions is lowered for several shapes. Sizes may differ between them; the sequence of kernels and their
statics should not, so that one compiled program serves every batch: choose kernels by constants and by ranks, never by a batch size.
A case that a family does not compile raises `NotCompiled` with the reason; the node then runs on the fallback.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from openinfer.config import EngineConfig
from openinfer.ir.graph import Array, Node, TensorType
from openinfer.machine import Machine


class NotCompiled(Exception):
    """This node, with these types, has no native lowering; the message is the reason that `openinfer check` shows."""


@dataclasses.dataclass(frozen=True)
class Value:
    """An input or output of a node. `data` is set where its content is known before the call; `constant` where it is the same in every
    call.
    """

    name: str
    type: TensorType
    data: Array | None = None
    constant: bool = False

    @property
    def dtype(self) -> str:
        """NumPy's name of the element type."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The concrete shape."""
        return self.type.shape


@dataclasses.dataclass(frozen=True)
class Packed:
    """An array made from constants when the model loads. Equal keys within a model share one array, so the key names every ingredient."""

    key: str
    make: Callable[[], Array]


@dataclasses.dataclass(frozen=True)
class Scratch:
    """Working memory of one node, alive from its first step that names it to the last. `per_thread` gives every thread its own
    `size_bytes`.
    """

    name: str
    size_bytes: int
    per_thread: bool = False


Operand = Value | Packed | Scratch


@dataclasses.dataclass(frozen=True)
class Step:
    """One kernel call: `kernel(*addresses of operands, *sizes, low, high)` for the blocks [low, high) of `blocks` that a thread takes.

    `kernel` is a name in `openinfer.kernels.cpu.registry`; `statics` are the factory's keyword arguments and must be hashable.
    `writes` are the positions of the operands that the kernel writes. Blocks of one step write disjoint memory; steps are separated
    by a barrier.
    `cost_ns` predicts the whole step on one thread; it decides whether threads are worth their price.
    """

    kernel: str
    statics: Mapping[str, Hashable]
    operands: tuple[Operand, ...]
    sizes: tuple[int, ...]
    blocks: int
    cost_ns: float
    writes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Alias:
    """`output` is `source` under another name and shape: no code, the same contiguous bytes."""

    output: Value
    source: Value


@dataclasses.dataclass(frozen=True)
class Target:
    """What lowering may depend on besides the node: the machine and the engine's knobs."""

    machine: Machine
    engine: EngineConfig


Infer = Callable[[Node, Sequence[Value | None]], list[TensorType]]
Lower = Callable[[Node, Sequence[Value | None], Sequence[Value | None], Target], list[Step | Alias]]


@dataclasses.dataclass(frozen=True)
class Operator:
    """A compiled operator. An absent optional input or output is `None` in the sequences."""

    infer: Infer
    lower: Lower


def required(values: Sequence[Value | None], position: int) -> Value:
    """The value at `position`, which the operator's schema makes mandatory."""
    value = values[position] if position < len(values) else None
    if value is None:
        raise NotCompiled(f"mandatory value {position} is absent")
    return value


def optional(values: Sequence[Value | None], position: int) -> Value | None:
    """The value at `position`, or `None` where it is absent."""
    return values[position] if position < len(values) else None


def known(value: Value, what: str) -> Any:
    """The content of `value`; `NotCompiled` where only the call itself knows it."""
    if value.data is None:
        raise NotCompiled(f"{what} is computed at run time")
    return value.data


def axis_of(given: Any, rank: int) -> int:
    """`given` counted from the front; `NotCompiled` where a tensor of `rank` has no such axis."""
    axis = int(given)
    if not -rank <= axis < rank:
        raise NotCompiled(f"axis {axis} of a tensor of rank {rank}; allowed: {-rank} to {rank - 1}")
    return axis % rank


def same_dtype(*values: Value) -> str:
    """The dtype that all `values` have; `NotCompiled` where they differ: a kernel reads them all alike."""
    if len({value.dtype for value in values}) != 1:
        raise NotCompiled(f"operands of {', '.join(value.dtype for value in values)}; compiled for one dtype")
    return values[0].dtype


FLOATS = ("float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMBERS = (*FLOATS, *INTEGERS)


def float_only(value: Value) -> str:
    """The dtype, which must be float32 or float64."""
    if value.dtype not in FLOATS:
        raise NotCompiled(f"dtype {value.dtype}; compiled for {', '.join(FLOATS)}")
    return value.dtype
