"""Which lane a request belongs to, found by its shapes: those that were seen cost one look-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.codegen.lowering import Refused
from openinfer.errors import MemoryBudgetError
from openinfer.ir.graph import Array, Signature, TensorType
from openinfer.runtime.program import Program
from openinfer.scheduler.lane import Lane, Shape, joined_symbol, rows_are_independent

KEPT_SHAPES = 512
Accept = Callable[[Any], dict[str, Any]]


class Lanes:
    """The lanes of a model. `joinable` tells whether requests of several lanes' shapes may share a call at all."""

    def __init__(self, inputs: Sequence[Signature], accept: Accept, program: Callable[[], Program | None], max_batch: int) -> None:
        """`accept` checks a request's inputs and converts what has to be converted."""
        self._most = max_batch
        self.joinable = max_batch > 1 and joined_symbol(inputs) is not None
        self._accept, self._program = accept, program
        self._names = tuple(signature.name for signature in inputs)
        self.only = self._names[0] if len(inputs) == 1 else None
        self.by_shape: dict[Any, Shape] = {}
        self._by_tails: dict[Any, Lane] = {}

    def find(self, inputs: Any) -> Shape:
        """What is known of such requests. `InputError` where the inputs do not fit the model."""
        try:
            only = self.only
            return self.by_shape[inputs[only].shape if only is not None else tuple([inputs[name].shape for name in self._names])]
        except (KeyError, AttributeError, TypeError, IndexError):
            return self._seen_first(self._accept(inputs))

    def arrays(self, inputs: Any, lane: Lane) -> dict[str, Any]:
        """The inputs as arrays that can be used; `InputError` where one has another dtype."""
        if type(inputs) is dict and lane.native and _fits(inputs, lane):
            return inputs
        return self._accept(inputs)

    def _seen_first(self, arrays: dict[str, Any]) -> Shape:
        shapes = tuple(array.shape if isinstance(array, np.ndarray) else () for array in arrays.values())
        key = shapes[0] if self.only is not None else shapes
        found = self.by_shape.get(key)
        if found is None:
            rows = int(arrays[self._names[0]].shape[0]) if self.joinable else 1
            joins = self.joinable and rows > 0
            tails = (joins, tuple(shape[1:] for shape in shapes) if joins else shapes)
            lane = self._by_tails.get(tails)
            if lane is None:
                _make_room(self._by_tails)
                lane = self._by_tails[tails] = self._lane(arrays, joins)
            _make_room(self.by_shape)
            found = self.by_shape[key] = Shape(lane, rows)
        return found

    def _lane(self, arrays: Mapping[str, Any], joins: bool) -> Lane:
        program = self._program()
        if program is None or not all(isinstance(array, np.ndarray) for array in arrays.values()):
            return Lane(0)
        kinds = {name: TensorType(array.dtype.name, array.shape) for name, array in arrays.items()}
        try:
            first_ns = int(program.instance(tuple(kinds.values())).cost_ns)
            joins = (
                joins
                and program.keeps_rows_apart(tuple(kinds.values()))
                and rows_are_independent(program, kinds, lambda rows: _drawn(kinds, rows))
            )
        except (Refused, MemoryBudgetError):  # for these shapes: `run` knows another way, or says why there is none
            return Lane(0)
        return Lane(first_ns, program, kinds, self._most if joins else 1)


def _fits(inputs: Mapping[str, Any], lane: Lane) -> bool:
    """Whether rows can be copied as they are; the shapes are known to fit."""
    if len(inputs) != len(lane.dtypes):
        return False
    return all(type(array := inputs[name]) is np.ndarray and array.dtype == dtype for name, dtype in lane.dtypes.items())


def _drawn(kinds: Mapping[str, TensorType], rows: int) -> dict[str, Array]:
    """Standard normal floats; integers 0 and 1, which every table has."""
    generator = np.random.default_rng(0)
    drawn: dict[str, Array] = {}
    for name, kind in kinds.items():
        shape = (rows, *kind.shape[1:])
        floats = np.dtype(kind.dtype).kind == "f"
        drawn[name] = np.asarray(generator.standard_normal(shape) if floats else generator.integers(0, 2, shape)).astype(kind.dtype)
    return drawn


def _make_room(kept: dict[Any, Any]) -> None:
    while len(kept) >= KEPT_SHAPES:
        kept.pop(next(iter(kept)))
