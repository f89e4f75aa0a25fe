"""Requests that may share a call: their joint buffers, and one bound call per number of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import IndexRangeError
from openinfer.ir.graph import Array, Signature, TensorType
from openinfer.runtime.entry import bound_call
from openinfer.runtime.executor import address
from openinfer.runtime.program import Instance, Program
from openinfer.scheduler.doubt import Doubt
from openinfer.scheduler.durations import Durations, padded
from openinfer.scheduler.request import Request

KEPT_SIZES = 32

Run = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Bound:
    """A call on the joint buffers, and its table. `held` keeps the GIL; `call` does not, and sets the `stamps` of `timed_call`."""

    table: Array
    held: Callable[[], None]
    call: Callable[[], None]
    stamps: Array


class JointCall:
    """Buffers for one batch at a time. Every size uses the first rows of the same arrays. Steady state allocates only outputs.

    Without `joined` it takes one request of exactly the shapes in `kinds`.
    """

    def __init__(self, program: Program, kinds: Mapping[str, TensorType], joined: bool) -> None:
        self._program, self._kinds, self._joined = program, kinds, joined
        self._capacity = 0
        self._bound: dict[int, Bound] = {}
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] = {}

    def gather(self, requests: Sequence[Request]) -> Bound:
        """Copy the rows of the requests, one after the other, and give the call that answers them."""
        if not self._joined:
            bound = self._bound.get(1) or self._bind(1)
            for name, whole in self._inputs.items():
                whole[...] = requests[0].arrays[name]
            return bound
        rows = sum(request.rows for request in requests)
        bound = self._bound.get(padded(rows)) or self._bind(padded(rows))
        for name, joined in self._inputs.items():
            at = 0
            for request in requests:
                joined[at : at + request.rows] = request.arrays[name]
                at += request.rows
        return bound

    def scatter(self, requests: Sequence[Request]) -> list[dict[str, Any]]:
        """Each request's rows of the outputs, in arrays of its own."""
        if not self._joined:
            return [{name: whole.copy() for name, whole in self._outputs.items()}]
        answers: list[dict[str, Any]] = []
        at = 0
        outputs = self._outputs.items()
        for request in requests:
            after = at + request.rows
            answers.append({name: joined[at:after].copy() for name, joined in outputs})
            at = after
        return answers

    def _bind(self, rows: int) -> Bound:
        if rows > self._capacity:
            self._grow(rows)
        while len(self._bound) >= KEPT_SIZES:
            self._bound.pop(next(iter(self._bound)))
        instance = self._instance(rows)
        self._program.start_pool()  # a worker that holds no GIL could not
        context, stamps = instance.timed()
        address(context.table, instance, self._first(self._inputs, rows), self._first(self._outputs, rows))
        bound = self._bound[rows] = Bound(context.table, bound_call(context.table, instance), context.call, stamps)
        return bound

    def _grow(self, rows: int) -> None:
        """Larger buffers; what was bound to the old ones is forgotten."""
        capacity = max(rows, 2 * self._capacity)
        # Rows beyond the last request are computed too, so they must hold something that every operator accepts.
        self._inputs = {name: np.zeros(self._shape(kind, capacity), kind.dtype) for name, kind in self._kinds.items()}
        self._outputs = {name: np.empty(self._shape(kind, capacity), kind.dtype) for name, kind in self._instance(rows).outputs}
        self._capacity = capacity
        self._bound.clear()

    def _instance(self, rows: int) -> Instance:
        return self._program.instance(tuple(TensorType(kind.dtype, self._shape(kind, rows)) for kind in self._kinds.values()))

    def _shape(self, kind: TensorType, rows: int) -> tuple[int, ...]:
        return (rows, *kind.shape[1:]) if self._joined else kind.shape

    def _first(self, arrays: Mapping[str, Array], rows: int) -> dict[str, Array]:
        return {name: array[:rows] if self._joined else array for name, array in arrays.items()}


class Lane:
    """Requests of one kind: the same shape, or where they can be joined, the same but for the first axis. Belongs to the loop's thread.

    A call takes `most` of them. `first_ns` is what the first one is expected to take; 0 where nothing is known: it leaves the loop.
    `native` tells whether it runs on buffers of the lane's own; else `run` answers each.
    """

    __slots__ = ("_free", "_kinds", "_program", "doubt", "dtypes", "durations", "most", "native", "waiting")

    def __init__(self, first_ns: int, program: Program | None = None, kinds: Mapping[str, TensorType] | None = None, most: int = 1) -> None:
        self.durations, self.doubt = Durations(first_ns), Doubt()
        self.waiting, self.most = 0, most
        self.native = program is not None and kinds is not None
        self._program, self._kinds = program, kinds
        self.dtypes = {name: np.dtype(kind.dtype) for name, kind in (kinds or {}).items()}
        self._free: list[JointCall] = []

    @property
    def joins(self) -> bool:
        """Whether requests may share a call."""
        return self.most > 1

    def lease(self) -> JointCall:
        """Joint buffers for one batch; `release` gives them back."""
        if self._free:
            return self._free.pop()
        assert self._program is not None and self._kinds is not None
        return JointCall(self._program, self._kinds, self.joins)

    def release(self, call: JointCall) -> None:
        """Return leased buffers."""
        self._free.append(call)


class Shape:
    """What is known of the requests of one shape: their lane, their rows, and how long one takes alone, in ns; 0 where none was seen."""

    __slots__ = ("alone_ns", "lane", "rows")

    def __init__(self, lane: Lane, rows: int) -> None:
        self.lane, self.rows, self.alone_ns = lane, rows, 0

    @property
    def known(self) -> bool:
        """Whether `expected_ns` rests on anything."""
        return bool(self.alone_ns) or self.lane.durations.known

    @property
    def expected_ns(self) -> int:
        """How long one is expected to take alone."""
        return self.alone_ns or self.lane.durations.predict(self.rows)

    def observe(self, ns: int) -> None:
        """Learn from a call alone. Falls faster than it rises: what disturbs a call only adds to it."""
        known = self.alone_ns
        self.alone_ns = known + (ns - known >> (1 if ns < known else 3)) if known else ns


def joined_symbol(inputs: Sequence[Signature]) -> str | None:
    """The symbol that is the first axis of every input and occurs nowhere else, or `None`: then requests cannot be joined."""
    symbol: str | None = None
    for signature in inputs:
        shape = signature.shape
        if not shape or not isinstance(shape[0], str) or shape[0] in shape[1:] or symbol not in (None, shape[0]):
            return None
        symbol = shape[0]
    return symbol


def rows_are_independent(program: Program, kinds: Mapping[str, TensorType], draw: Callable[[int], Mapping[str, Array]]) -> bool:
    """Whether each row of a joined call is answered as if it were alone, bit for bit, tried on the rows that `draw(rows)` gives.

    The second check, after the proof from the graph (`Program.keeps_rows_apart`): drawn rows alone would not show a mixing that only
    some values bring out. Requests of a model that the drawn rows index out of range are not joined either.
    """
    try:
        return _answered_alike(program, kinds, draw(3))
    except IndexRangeError:
        return False


def _answered_alike(program: Program, kinds: Mapping[str, TensorType], rows: Mapping[str, Array]) -> bool:
    whole = _answer(program, kinds, rows, 0, 3)
    for at in range(3):
        alone = _answer(program, kinds, rows, at, at + 1)
        for name, array in whole.items():
            one = alone[name]
            if array.ndim == 0 or len(array) != 3 or one.shape != (1, *array.shape[1:]) or one[0].tobytes() != array[at].tobytes():
                return False
    return bool(whole)


def _answer(program: Program, kinds: Mapping[str, TensorType], rows: Mapping[str, Array], first: int, after: int) -> dict[str, Array]:
    instance = program.instance(tuple(_of_rows(kind, after - first) for kind in kinds.values()))
    outputs = {name: np.empty(kind.shape, kind.dtype) for name, kind in instance.outputs}
    context = instance.context()
    inputs = {name: np.ascontiguousarray(rows[name][first:after]) for name in kinds}
    address(context.table, instance, inputs, outputs)
    context.call()
    return outputs


def _of_rows(kind: TensorType, rows: int) -> TensorType:
    return TensorType(kind.dtype, (rows, *kind.shape[1:]))
