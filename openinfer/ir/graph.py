"""The intermediate representation: a graph of ONNX-named operators over named values. Imports no framework.

Graphs and nodes are immutable; a pass returns a new graph. Shapes become concrete when a graph is instantiated for one set of input shapes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
}


@dataclasses.dataclass(frozen=True, slots=True)
class TensorType:
    """Element type (NumPy's name) and concrete shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of a contiguous tensor of this type."""
        return self.count * ITEM_BYTES[self.dtype]


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """A graph input or output: a dimension is a number, or the name of a symbol that a request binds ("" when the model names none)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One operator application. An absent optional input is the empty name. `version` is the opset version of `domain`.

    `captures` are the outer values that the node's subgraphs read. `parts` are the nodes of the model that a fused node stands for, in
    order: together they compute the same outputs, where the fused node itself cannot be compiled.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    domain: str = ""
    version: int = 0
    name: str = ""
    captures: tuple[str, ...] = ()
    parts: tuple[Node, ...] = ()

    @property
    def key(self) -> str:
        """The node's name among all: the first value that it writes, for an output may be left out."""
        return next((name for name in self.outputs if name), "")

    @property
    def reads(self) -> tuple[str, ...]:
        """Every value that must exist before the node runs."""
        return tuple(dict.fromkeys(name for name in (*self.inputs, *self.captures) if name))

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value, or `default` where the model leaves it out."""
        return self.attributes.get(name, default)


@dataclasses.dataclass(frozen=True)
class Graph:
    """Nodes in topological order; every value has one writer."""

    name: str
    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]

    def with_nodes(self, nodes: Iterable[Node], constants: Mapping[str, Array] | None = None) -> Graph:
        """The same signature around other nodes; constants that nobody reads are dropped."""
        kept = tuple(nodes)
        read = {name for node in kept for part in (node, *node.parts) for name in part.reads} | {output.name for output in self.outputs}
        pool = self.constants if constants is None else constants
        return dataclasses.replace(self, nodes=kept, constants={name: value for name, value in pool.items() if name in read})

    def names(self) -> set[str]:
        """Every value's name."""
        written = {name for node in self.nodes for name in node.outputs}
        return {*(signature.name for signature in self.inputs), *self.constants, *written}

    def consumers(self) -> dict[str, list[Node]]:
        """Value name → nodes that read it; a graph output counts as read by no node."""
        table: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.reads:
                table.setdefault(name, []).append(node)
        return table

    def producers(self) -> dict[str, Node]:
        """Value name → the node that writes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, numbered where the model has that name already; added to `taken`."""
    numbers = itertools.count(2)
    name = wanted
    while name in taken:
        name = f"{wanted}.{next(numbers)}"
    taken.add(name)
    return name
