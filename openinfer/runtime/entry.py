"""Calls from Python into a compiled program: `bound_call` for fixed buffers, `Runner` for a dict of arrays.

A table is an int64 array whose words `control_block` names: word 0 the program, word 1 a pool's control block or 0, word 2 the threads;
the code generator owns the rest. Whoever fills the words keeps alive what they point to, by way of `owner` or of the table's own holder.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.errors import OverloadError
from openinfer.runtime import entry_layout, entry_native
from openinfer.runtime import entry_run_ir as words

Table = np.ndarray[Any, np.dtype[np.int64]]

BATCH = -1  # a dimension of a `Port` that is the run-time batch
MAX_TABLES = 1024  # calls of one runner that may be inside at once


def bound_call(table: Table, owner: object = None, *, release_gil: bool = False) -> Callable[[], None]:
    """A builtin without arguments that runs the table's program once and returns None. `IndexRangeError` where an index
    lies outside its axis, `CompiledCodeError` where the program fails otherwise.

    One thread at a time may be inside it. It keeps `table` and `owner` alive. `release_gil` lets other Python threads run meanwhile
    (about 30 ns, and the wait for the GIL afterwards). With a control block in word 1 and 2 or more in word 2 it runs on the pool.
    """
    symbol = "openinfer_call_released" if release_gil else "openinfer_call"
    call: Callable[[], None] = entry_native.function(symbol, _address(table), (table, owner))
    return call


def timed_call(table: Table, owner: object = None) -> tuple[Callable[[], None], Table]:
    """As `bound_call` without the GIL, and an int64 array whose last two of three words the call sets: when the program ended and when
    the thread held the GIL again, on the clock of `time.perf_counter_ns`.
    """
    stamps = np.zeros(3, np.int64)
    stamps[0] = _address(table)
    call: Callable[[], None] = entry_native.function("openinfer_call_timed", _address(stamps), (table, stamps, owner))
    return call, stamps


def stamped_call(table: Table, rows: Table, owner: object = None, *, release_gil: bool = False) -> Callable[[], None]:
    """As `bound_call`, and each call notes when the program began and ended in the next row of `rows`, int64 of shape [n, 2], C-contiguous,
    from the first again after the last. Both readings of the clock, that of `time.perf_counter_ns`, are native.
    """
    words = np.array([_address(table), int(release_gil), 0, len(rows), rows.ctypes.data], np.int64)
    call: Callable[[], None] = entry_native.function("openinfer_call_stamped", _address(words), (table, rows, words, owner))
    return call


@functools.cache
def data_address() -> Callable[[Any], int]:
    """The function array → address of its data, as fast as this interpreter allows; `TypeError` for anything but a plain ndarray."""
    if entry_layout.problem() is None:
        native: Callable[[Any], int] = entry_native.function("openinfer_address", 0, None)
        return native
    return _slow_address


@dataclasses.dataclass(frozen=True)
class Port:
    """An input or output: its name, dtype, shape (`BATCH` for the run-time batch) and the table word that takes the data's address."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    slot: int

    def fits(self, array: object, batch: int, limit: int) -> int | None:
        """The batch (-1 while unknown) where `array` can be read in place, else None: the meaning of the native check."""
        if type(array) is not np.ndarray or array.dtype.num != np.dtype(self.dtype).num or not array.dtype.isnative:
            return None
        if not (array.flags.c_contiguous and array.flags.aligned) or array.ndim != len(self.shape):
            return None
        for have, want in zip(array.shape, self.shape, strict=True):
            if have == want:
                continue
            if want != BATCH or not 1 <= have <= limit or batch not in (-1, have):
                return None
            batch = have
        return batch


class Runner:
    """`run({name: array}) -> {name: fresh array}`, or None where the inputs cannot be used in place; then nothing has happened.

    In place means: a plain dict with exactly the inputs' names, plain ndarrays of the very dtype (native byte order), shape, C-contiguous
    and aligned. None asks the caller for the slow path: convert, or raise the exact `InputError`. All `BATCH` dimensions of a call must
    agree and lie in 1…batch_limit; the batch is stored in table word `batch_slot`.

    Any number of threads may call `run`. Each call leases a table; `new_table()` makes one (with its own scratch memory) when none is
    free, at first during construction. A failing program raises as in `bound_call`; more than `MAX_TABLES` calls at once, `OverloadError`.
    `native` tells whether the fast path is in use. `run` keeps what it needs alive (tables, `new_table`), without a reference cycle.
    """

    def __init__(
        self,
        new_table: Callable[[], Table],
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        *,
        batch_slot: int | None = None,
        batch_limit: int = 1,
        release_gil: bool = False,
    ) -> None:
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.tables: list[Table] = []
        self._batch_slot, self._batch_limit, self._release_gil = batch_slot, batch_limit, release_gil
        self._make = _maker(self.tables, new_table)
        grow, free = _grower(self._make), np.zeros(MAX_TABLES, np.int64)
        descriptor, kept = self._descriptor(grow, free)
        free[0] = grow()
        descriptor[words.FREE_COUNT] = 1
        few = max(len(self.inputs), len(self.outputs)) <= words.MAX_PORTS
        flat = all(len(port.shape) <= words.MAX_DIMS for port in (*self.inputs, *self.outputs))
        self._idle = list(self.tables)
        self.native = few and flat and entry_layout.problem() is None
        self.run: Callable[[Any], dict[str, Any] | None] = (
            entry_native.function("openinfer_run", descriptor.ctypes.data, (descriptor, kept, grow, free))
            if self.native
            else functools.partial(_run_slowly, weakref.ref(self))
        )

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """As `run`, with a Python call more."""
        return self.run(inputs)

    def _descriptor(self, grow: Callable[[], int], free: Table) -> tuple[Table, list[object]]:
        """The native description and the objects that it points to."""
        kept: list[object] = []
        records = [np.zeros(words.RECORD_WORDS * max(1, len(ports)), np.int64) for ports in (self.inputs, self.outputs)]
        for ports, record, is_input in zip((self.inputs, self.outputs), records, (True, False), strict=True):
            for k, port in enumerate(ports):
                name, dtype, dims = sys.intern(port.name), np.dtype(port.dtype), np.array([*port.shape, 0], np.int64)
                kept += [name, dtype, dims]
                at = words.RECORD_WORDS * k
                record[at + words.RECORD_KEY] = id(name)
                record[at + words.RECORD_TYPE] = dtype.num if is_input else id(dtype)
                record[at + words.RECORD_NDIM] = len(port.shape)
                record[at + words.RECORD_SLOT] = port.slot
                record[at + words.RECORD_DIMS] = dims.ctypes.data
        whole = np.zeros(words.DESCRIPTOR_WORDS, np.int64)
        whole[words.FREE] = free.ctypes.data
        whole[words.GROW] = id(grow)
        whole[words.INPUTS], whole[words.OUTPUTS] = len(self.inputs), len(self.outputs)
        whole[words.RELEASE] = int(self._release_gil)
        whole[words.BATCH_SLOT] = -1 if self._batch_slot is None else self._batch_slot
        whole[words.BATCH_LIMIT] = self._batch_limit
        whole[words.INPUT_RECORDS], whole[words.OUTPUT_RECORDS] = (record.ctypes.data for record in records)
        return whole, [*kept, *records]

    def run_slowly(self, inputs: Any) -> dict[str, Any] | None:
        """`run` where arrays cannot be read natively: the same answers, some microseconds slower."""
        if type(inputs) is not dict or len(inputs) != len(self.inputs):
            return None
        batch = -1
        for port in self.inputs:
            found = port.fits(inputs.get(port.name), batch, self._batch_limit)
            if found is None:
                return None
            batch = found
        arrays = [inputs[port.name] for port in self.inputs]
        made = {port.name: np.empty([batch if size == BATCH else size for size in port.shape], port.dtype) for port in self.outputs}
        try:
            table = self._idle.pop()
        except IndexError:
            table = self._make()
        try:
            for port, array in zip((*self.inputs, *self.outputs), (*arrays, *made.values()), strict=True):
                table[port.slot] = array.ctypes.data
            if self._batch_slot is not None:
                table[self._batch_slot] = batch
            bound_call(table, release_gil=self._release_gil)()
        finally:
            self._idle.append(table)
        return made


def _run_slowly(runner: weakref.ref[Runner], inputs: Any) -> dict[str, Any] | None:
    alive = runner()
    return None if alive is None else alive.run_slowly(inputs)


def _maker(tables: list[Table], new_table: Callable[[], Table]) -> Callable[[], Table]:
    room = [None] * MAX_TABLES  # popped and appended to in one step each, so that threads that grow at once keep to it without a lock

    def make() -> Table:
        try:
            room.pop()
        except IndexError:
            raise OverloadError(
                f"{len(tables)} calls of one engine are running at once; allowed: {len(tables)}; limit the caller's threads"
            ) from None
        try:
            table = new_table()
            _address(table)
        except BaseException:
            room.append(None)
            raise
        tables.append(table)
        return table

    return make


def _grower(make: Callable[[], Table]) -> Callable[[], int]:
    def grow() -> int:
        return _address(make())

    return grow


def _address(table: Table) -> int:
    if table.dtype != np.int64 or table.ndim != 1 or not table.flags.c_contiguous or not table.flags.writeable:
        raise ValueError(f"a call's table is a writeable one-dimensional int64 array, not {table.dtype} of shape {table.shape}")
    return int(table.ctypes.data)


def _slow_address(array: Any) -> int:
    if type(array) is not np.ndarray:
        raise TypeError("expected a numpy.ndarray")
    return int(array.ctypes.data)
