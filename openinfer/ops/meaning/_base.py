"""What an operator means, written once against an array namespace: `xp` is NumPy or CuPy, and the same lines serve both.

    def evaluate(call): ...                 arrays in, a list of arrays out, one per output of the node (`None` for one that it leaves out)

Arrays live where `xp` keeps them. A meaning looks at their shapes and dtypes, never at their contents: a branch on a device array would
wait for the device. Contents that decide a shape (axes, sizes, repeats) are inputs at `Meaning.host` positions, always NumPy arrays.
A form that a meaning does not cover raises `NotCompiled`, and the node runs on the fallback. Only functions that both namespaces have are
used, with arguments that both take; `tests/strict_cupy.py` watches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops._base import NotCompiled, Value
from openinfer.ops.meaning.formula import Formula

Keep = Callable[[Hashable, Callable[[], Array]], Any]


@dataclasses.dataclass(frozen=True)
class Call:
    """One evaluation of a node. `keep(key, make)` gives an array of the namespace that is made on the host once per node and key.

    `outside` collects arrays of one bool, true where an index lay outside its axis; the caller reads them when it reads the results.
    """

    xp: Any
    node: Node
    inputs: Sequence[Any]
    keep: Keep
    outside: list[Any] = dataclasses.field(default_factory=list)

    def array(self, position: int) -> Any:
        """The mandatory input at `position`."""
        value = self.optional(position)
        if value is None:
            raise NotCompiled(f"mandatory value {position} is absent")
        return value

    def optional(self, position: int) -> Any:
        """The input at `position`, or `None` where it is absent."""
        return self.inputs[position] if position < len(self.inputs) else None

    def integers(self, position: int) -> list[int] | None:
        """The content of a host input as a flat list; `None` where it is absent."""
        value = self.optional(position)
        return None if value is None else [int(item) for item in np.asarray(value).reshape(-1)]

    def must_be_inside(self, inside: Any) -> None:
        """Of each index, whether it lies inside its axis; the results mean nothing where one does not."""
        if inside.size:
            self.outside.append(self.xp.any(~inside))

    def attribute(self, name: str, default: Any = None) -> Any:
        """The node's attribute, or `default`."""
        return self.node.attribute(name, default)


Evaluate = Callable[[Call], Sequence[Any]]
Formulate = Callable[[Node, Sequence[str]], Formula]


@dataclasses.dataclass(frozen=True)
class Meaning:
    """`host`: positions of the inputs that `evaluate` gets as NumPy arrays. `formula`: an elementwise operator's formula for a node and
    its inputs' dtypes; neighbouring ones become one kernel.
    """

    evaluate: Evaluate
    host: tuple[int, ...] = ()
    formula: Formulate | None = None


Meanings = dict[tuple[str, str], Meaning]


def fresh(key: Hashable, make: Callable[[], Array]) -> Array:
    """The `keep` of NumPy without a cache."""
    return make()


def accumulator(dtype: Any) -> Any:
    """The dtype in which sums over `dtype` are held: float64 for floats, so that their order does not show in the last digits."""
    kind = np.dtype(dtype)
    return np.dtype(np.float64) if kind.kind == "f" else kind


def values(call: Call) -> list[Value | None]:
    """The inputs as lowering sees them: types, and the content of host inputs."""
    return [
        None
        if array is None
        else Value(name, TensorType(array.dtype.name, tuple(array.shape)), array if isinstance(array, np.ndarray) else None)
        for name, array in zip(call.node.inputs, call.inputs, strict=False)
    ]
