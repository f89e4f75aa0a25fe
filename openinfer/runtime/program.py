"""A native graph, compiled once for all batches: variants of code, instances per input shape, contexts per concurrent call."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
import weakref
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from openinfer.codegen.build import Built, build
from openinfer.codegen.independence import keeps_rows_apart
from openinfer.codegen.lowering import Lowered, lower
from openinfer.codegen.program import HEADER, Literals, Numbers, Skeleton, fits, literals, private_bytes, skeleton, varying
from openinfer.config import Config
from openinfer.errors import MemoryBudgetError
from openinfer.fork_lock import ForkLock
from openinfer.ir.graph import Array, Graph, TensorType
from openinfer.kernels.cpu import control_block as words
from openinfer.memory.arena import aligned_copy
from openinfer.memory.controller import Policy
from openinfer.memory.planner import Layout, Lifetime, plan
from openinfer.memory.pool import Pool as MemoryPool
from openinfer.ops._base import Packed, Scratch, Target
from openinfer.passes.fold_constants import Evaluate
from openinfer.runtime.entry import Port, Runner, bound_call, stamped_call, timed_call
from openinfer.runtime.pool import Pool

log = logging.getLogger("openinfer")

RELEASE_GIL_NS = 20_000
KEPT_INSTANCES = 64
TABLE_ALIGNMENT = 128  # two lines: the processor fetches them in pairs

Types = tuple[TensorType, ...]


@dataclasses.dataclass(frozen=True)
class Variant:
    """Code for one skeleton with some numbers fixed."""

    skeleton: Skeleton
    fixed: Literals
    built: Built
    seconds: float


@dataclasses.dataclass
class Context:
    """Memory of one call at a time: a table, which holds its arena."""

    table: Array
    call: Callable[[], None]


class Instance:
    """A program with concrete shapes: the table's template and where the caller's addresses go."""

    def __init__(
        self,
        lowered: Lowered,
        variant: Variant,
        numbers: Numbers,
        layout: Layout,
        addresses: Mapping[tuple[str, str], int],
        memory: MemoryPool,
        pool: Pool | None,
        keep: Sequence[Array],
    ) -> None:
        self.inputs = tuple((value.name, value.type) for value in lowered.inputs)
        self.outputs = tuple((value.name, value.type) for value in lowered.outputs)
        self.cost_ns, self.layout = lowered.cost_ns, layout
        self._keep, self._memory, self._name = (
            (keep, pool, variant),
            memory,
            f"call of {', '.join(f'{value.name} {list(value.type.shape)}' for value in lowered.inputs)}",
        )
        slots = {buffer: HEADER + index for index, buffer in enumerate(variant.skeleton.buffers)}
        self.input_slots = {value.name: slots["input", value.name] for value in lowered.inputs}
        self.output_slots = {name: slots["output", name] for name in lowered.buffers}
        tail = varying(numbers, variant.fixed)
        self._template = np.zeros(HEADER + len(slots) + len(tail), np.int64)
        self._template[words.TABLE_PROGRAM] = variant.built.entry
        self._template[HEADER + len(slots) :] = tail
        # The last number is the threads a step is worth; where no step is worth two, the pool is left alone.
        if pool is not None and any(row[-1] > 1 for row in numbers):
            self._template[words.TABLE_CONTROL], self._template[words.TABLE_THREADS] = pool.address, pool.threads
        for buffer, address in addresses.items():
            self._template[slots[buffer]] = address
        self._arena_slots = [(slots[buffer], layout.offsets[buffer[1]]) for buffer in slots if buffer[0] in ("arena", "scratch")]
        self._free: list[Context] = []
        self._tables: weakref.WeakValueDictionary[int, Array] = weakref.WeakValueDictionary()
        self._numbers = itertools.count()

    @property
    def contexts(self) -> int:
        """How many calls may be inside at once without another arena."""
        return len(self._tables)

    def runner(self) -> Runner:
        """The fast path of `Engine.run` for these shapes; the runner holds the instance, and each of its tables has an arena."""

        def ports(tensors: Sequence[tuple[str, TensorType]], slots: Mapping[str, int]) -> list[Port]:
            return [Port(name, kind.dtype, kind.shape, slots[name]) for name, kind in tensors]

        release = self.cost_ns > RELEASE_GIL_NS
        return Runner(self._table, ports(self.inputs, self.input_slots), ports(self.outputs, self.output_slots), release_gil=release)

    def context(self) -> Context:
        """A context of the caller's own."""
        table = self._table()
        return Context(table, bound_call(table, self, release_gil=self.cost_ns > RELEASE_GIL_NS))

    def timed(self) -> tuple[Context, Array]:
        """A context whose call never holds the GIL, and the stamps that `timed_call` describes."""
        table = self._table()
        call, stamps = timed_call(table, self)
        return Context(table, call), stamps

    def stamped(self, rows: Array) -> Context:
        """A context of the caller's own whose calls fill `rows`, as `stamped_call` describes."""
        table = self._table()
        return Context(table, stamped_call(table, rows, self, release_gil=self.cost_ns > RELEASE_GIL_NS))

    def lease(self) -> Context:
        """A context from the free list, or a new one; `release` gives it back."""
        try:
            return self._free.pop()
        except IndexError:
            return self.context()

    def release(self, context: Context) -> None:
        """Return a leased context."""
        self._free.append(context)

    def memory(self, context: Context) -> list[tuple[int, int]]:
        """Address and size of all that a call of this context reads and writes, but for its inputs and outputs: the arena, the weights."""
        size = -(-self.layout.peak_bytes // TABLE_ALIGNMENT) * TABLE_ALIGNMENT
        keep, _, _ = self._keep
        return [(context.table.ctypes.data - size, size), *((array.ctypes.data, array.nbytes) for array in keep)]

    def let_go(self) -> bool:
        """Drop the contexts on the free list; whether there were any."""
        found = bool(self._free)
        self._free.clear()
        return found

    def _table(self) -> Array:
        """A table and the arena that it points into, in one lease, which ends when the table is dropped."""
        start = -(-self.layout.peak_bytes // TABLE_ALIGNMENT) * TABLE_ALIGNMENT
        lease = self._memory.lease(start + self._template.nbytes, self._name)
        memory = lease.array
        table = memory[start:].view(np.int64)
        weakref.finalize(table, self._memory.return_later(lease)).atexit = False
        table[:] = self._template
        base = memory.ctypes.data
        for slot, offset in self._arena_slots:
            table[slot] = base + offset
        self._tables[next(self._numbers)] = table
        return table


class Program:
    """Compiles a graph of native operators and keeps an instance per set of input shapes. Safe to call from several threads."""

    def __init__(
        self, graph: Graph, target: Target, config: Config, evaluate: Evaluate, pool: Pool | None = None, memory: MemoryPool | None = None
    ) -> None:
        self.graph = graph
        self._target, self._config, self._evaluate, self._pool = target, config, evaluate, pool
        self._memory = memory or MemoryPool(memory_policy(config))
        self._threads = pool.threads if pool is not None else 1
        self._variants: list[Variant] = []
        self._instances: dict[Types, Instance] = {}
        self._packed: dict[str, Array] = {}
        self._constants: dict[str, Array] = {}
        self._lock = ForkLock()
        self.plan_s = 0.0  # seconds spent on placing buffers

    @property
    def variants(self) -> Sequence[Variant]:
        """The code compiled so far."""
        return tuple(self._variants)

    @property
    def threads(self) -> int:
        """Threads that a call may use."""
        return self._threads

    def packed_bytes(self, key: str) -> int:
        """Size of a packed array that an instance has; 0 where none has it."""
        array = self._packed.get(key)
        return 0 if array is None else array.nbytes

    @property
    def instances(self) -> Mapping[Types, Instance]:
        """The shapes seen so far."""
        return dict(self._instances)

    def prepare(self, examples: Sequence[Types]) -> None:
        """Compile for several example shapes at once: what differs between them becomes a run-time number. Raises `Refused`,
        and `MemoryBudgetError` where no example fits the machine.
        """
        found: dict[Skeleton, list[Numbers]] = {}
        too_large: MemoryBudgetError | None = None
        for types in examples:
            try:
                shape, numbers = skeleton(self._lower(types), self._threads)
            except MemoryBudgetError as error:
                too_large = error
            else:
                found.setdefault(shape, []).append(numbers)
        if too_large is not None and not found:
            raise too_large
        for shape, seen in found.items():
            self._variant(shape, seen)

    def instance(self, types: Types) -> Instance:
        """The instance for concrete input types, in the order of the graph's inputs. Raises `Refused` where a node has no native form."""
        instance = self._instances.get(types)
        if instance is None:
            with self._lock.held():
                instance = self._instances.get(types) or self._instantiate(types)
                while len(self._instances) >= KEPT_INSTANCES:
                    self._instances.pop(next(iter(self._instances)))
                self._instances[types] = instance
        return instance

    def keeps_rows_apart(self, types: Types) -> bool:
        """Whether the graph proves that rows along the first axis of all inputs, otherwise of these types, are answered each for itself."""
        named = {signature.name: kind for signature, kind in zip(self.graph.inputs, types, strict=True)}
        return keeps_rows_apart(self.graph, named, self._evaluate)

    def start_pool(self) -> None:
        """Start the threads that calls share, where they do not run: a call from Python does it by itself, a native worker cannot."""
        if self._pool is not None:
            self._pool.start()

    def _lower(self, types: Types) -> Lowered:
        named = {signature.name: kind for signature, kind in zip(self.graph.inputs, types, strict=True)}
        return lower(self.graph, named, self._target, self._evaluate)

    def timed(self, types: Types) -> tuple[Instance, Lowered, Variant]:
        """An instance of its own whose code notes the time between its steps (`TABLE_STAMPS`), what it was lowered to, and the code. What
        other calls run stays as it is. Raises `Refused` as `instance` does.
        """
        with self._lock.held():
            lowered = self._lower(types)
            shape, numbers = skeleton(lowered, self._threads)
            begin = time.perf_counter()
            fixed = literals([numbers])
            variant = Variant(shape, fixed, build(shape, fixed, self._threads, timed=True), time.perf_counter() - begin)
            return self._placed(lowered, variant, numbers), lowered, variant

    def _instantiate(self, types: Types) -> Instance:
        lowered = self._lower(types)
        shape, numbers = skeleton(lowered, self._threads)
        variant = next((v for v in self._variants if v.skeleton == shape and fits(numbers, v.fixed)), None)
        return self._placed(lowered, variant or self._variant(shape, [numbers]), numbers)

    def _placed(self, lowered: Lowered, variant: Variant, numbers: Numbers) -> Instance:
        keep: list[Array] = []
        addresses = self._addresses(lowered, variant.skeleton, keep)
        begin = time.perf_counter()
        layout = plan(lifetimes(lowered, variant.skeleton, self._threads), effort=self._config.memory.plan_effort)
        self.plan_s += time.perf_counter() - begin
        return Instance(lowered, variant, numbers, layout, addresses, self._memory, self._pool, keep)

    def _variant(self, shape: Skeleton, seen: Sequence[Numbers]) -> Variant:
        fixed = literals(seen)
        same = [variant.fixed for variant in self._variants if variant.skeleton == shape]
        if same:
            fixed = tuple(
                tuple(a if a == b else None for a, b in zip(row, other, strict=True)) for row, other in zip(fixed, same[-1], strict=True)
            )
        begin = time.perf_counter()
        built = build(shape, fixed, self._threads)
        variant = Variant(shape, fixed, built, time.perf_counter() - begin)
        log.info("%s: %d steps %s in %.2f s", self.graph.name, len(shape.steps), "loaded" if built.cached else "compiled", variant.seconds)
        self._variants.append(variant)
        return variant

    def preflight(self, types: Types) -> int:
        """Bytes of an arena for these types, with the weights packed and charged; `MemoryBudgetError` where the pool's budget has no room.

        Nothing is compiled. Raises `Refused` as `instance` does.
        """
        lowered = self._lower(types)
        shape, _ = skeleton(lowered, self._threads)
        self._addresses(lowered, shape, [])
        peak = plan(lifetimes(lowered, shape, self._threads), effort=self._config.memory.plan_effort).peak_bytes
        self._memory.check_room(peak, f"the arena of {self.graph.name!r}")
        return peak

    def _charged(self, array: Array) -> Array:
        self._memory.charge(array.nbytes, f"the weights of {self.graph.name!r}")
        return array

    def _addresses(self, lowered: Lowered, shape: Skeleton, keep: list[Array]) -> dict[tuple[str, str], int]:
        """Addresses of everything that exists before a call: packed weights, constants, known contents."""
        alignment, huge = self._config.memory.alignment, self._config.memory.huge_pages
        makers = {operand.key: operand.make for step in lowered.steps for operand in step.operands if isinstance(operand, Packed)}
        addresses = {}
        for kind, name in shape.buffers:
            if kind == "packed":
                if name not in self._packed:
                    self._packed[name] = self._charged(aligned_copy(makers[name](), alignment, huge))
                array = self._packed[name]
            elif kind == "data" and name in self.graph.constants:
                if name not in self._constants:
                    self._constants[name] = self._charged(aligned_copy(self.graph.constants[name], alignment, huge))
                array = self._constants[name]
            elif kind == "data":
                array = aligned_copy(np.asarray(lowered.data[name]), alignment)
            else:
                continue
            keep.append(array)
            addresses[kind, name] = array.ctypes.data
        return addresses


def memory_policy(config: Config) -> Policy:
    """The pool that a program's tables need."""
    return Policy.of(config.memory, TABLE_ALIGNMENT)


def lifetimes(lowered: Lowered, shape: Skeleton, threads: int) -> list[Lifetime]:
    """Every buffer that lives between two steps of one call, or during one."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    size: dict[str, int] = {}
    planned = {name for kind, name in shape.buffers if kind in ("arena", "scratch")}
    for index, step in enumerate(lowered.steps):
        for operand in step.operands:
            if isinstance(operand, Packed):
                continue
            name = operand.name if isinstance(operand, Scratch) else lowered.root(operand.name)
            if name in planned:
                first.setdefault(name, index)
                last[name] = index
                nbytes = _scratch_bytes(operand, threads) if isinstance(operand, Scratch) else operand.type.size_bytes
                size[name] = max(size.get(name, 0), nbytes)
    return [Lifetime(name, size[name], first[name], last[name]) for name in first]


def _scratch_bytes(scratch: Scratch, threads: int) -> int:
    return private_bytes(scratch) * threads if scratch.per_thread else scratch.size_bytes
