"""Runs a graph on a device, operator by operator, by the operators' meanings.

Weights go to the device once, inputs once a call, outputs come back once; what is between stays there and is freed after its last reader.
Arithmetic on shapes stays on the host, so that nothing waits for the device. A node without a meaning, or in a form that its meaning
leaves out, runs on the fallback between two copies.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from openinfer.errors import IndexRangeError
from openinfer.fork_lock import ForkLock
from openinfer.ir.graph import ITEM_BYTES, Array, Graph, Node
from openinfer.kernels.gpu.elementwise import Kernel, Statement, render
from openinfer.kernels.gpu.fuse import chains, external
from openinfer.ops._base import NotCompiled
from openinfer.ops.broadcast import loops
from openinfer.ops.meaning import registry
from openinfer.ops.meaning._base import Call, Meaning, fresh
from openinfer.passes.fold_constants import GROWING
from openinfer.runtime.executor import Price
from openinfer.runtime.fallback import Fallback

KNOWN_ELEMENTS = 4096  # of a value that is worked out on the host where all that it follows from is known there
KEPT_KERNELS = 1024  # of all groups and shapes
KEPT_ARRAYS = 64  # host-made arrays that one node keeps on the device, for as many shapes
MALFORMED = (ValueError, TypeError, IndexError, KeyError, OverflowError, ZeroDivisionError)
SHAPES = frozenset({"Shape", "Size"})


class ArrayDevice(Protocol):
    """Where arrays live. `xp` is its namespace; safe to use from several threads."""

    xp: Any

    def active(self) -> AbstractContextManager[None]:
        """Everything that a thread allocates inside comes from the device's pool."""

    def upload(self, array: Array) -> Any:
        """A copy on the device."""

    def download(self, array: Any) -> Array:
        """A fresh copy on the host."""

    def launch(self, source: str, name: str, elements: int, arguments: Sequence[Any]) -> None:
        """Run a generated kernel."""

    def statistics(self) -> dict[str, Any]:
        """What the device is, holds and has done."""

    def close(self) -> None:
        """Give back what is not in use."""


@dataclasses.dataclass(frozen=True)
class Fused:
    """A group's kernel for one set of types and shapes, what follows its arrays when it is launched, and what it writes."""

    kernel: Kernel
    shape: tuple[int, ...]
    dtype: str
    count: int
    numbers: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Group:
    """Nodes that run as one kernel where their types allow it. `frees` are the values that nobody reads afterwards."""

    nodes: tuple[Node, ...]
    reads: tuple[str, ...]
    frees: tuple[str, ...]


class Values:
    """The values of one call: on the host, on the device, or both. `known` ones follow from constants and shapes alone."""

    def __init__(self, executor: GpuExecutor, inputs: Mapping[str, Any]) -> None:
        self._executor = executor
        self.host: dict[str, Any] = dict(inputs)
        self.device: dict[str, Any] = {}
        self.known: set[str] = set()
        self.outside: list[Any] = []  # arrays of one bool on the device: whether an index lay outside its axis

    def on_host(self, name: str) -> Any:
        """The value as the host sees it; a copy where only the device has it."""
        if name in self.host:
            return self.host[name]
        if name in self._executor.graph.constants:
            return self._executor.graph.constants[name]
        self.host[name] = self._executor.device.download(self.device[name])
        return self.host[name]

    def on_device(self, name: str) -> Any:
        """The value as the device sees it. Constants are copied once for all calls."""
        if name in self.device:
            return self.device[name]
        if name in self._executor.graph.constants:
            return self._executor.resident(name)
        value = np.asarray(self.host[name]) if isinstance(self.host[name], np.generic) else self.host[name]
        if not isinstance(value, np.ndarray) or value.dtype.name not in ITEM_BYTES:
            raise NotCompiled(f"{name!r} is a {getattr(value, 'dtype', type(value).__name__)}, which stays on the host")
        self.device[name] = self._executor.device.upload(value)
        return self.device[name]

    def either(self, name: str) -> Any:
        """The value wherever it is."""
        return self.device[name] if name in self.device else self.on_host(name)

    def is_known(self, name: str) -> bool:
        """Whether the host has the value, it is small, and no request changes it but by its shapes."""
        constant = self._executor.graph.constants.get(name)
        return name in self.known or (constant is not None and constant.size <= KNOWN_ELEMENTS)

    def drop(self, names: Sequence[str]) -> None:
        """Forget values."""
        for name in names:
            self.host.pop(name, None)
            self.device.pop(name, None)


class GpuExecutor:
    """Graph → results, by name. Safe to call from several threads."""

    def __init__(self, graph: Graph, device: ArrayDevice, fallback: Fallback, fusion: bool = True) -> None:
        # A fused node has no meaning of its own: it is the nodes that it was fused from.
        self.graph = graph.with_nodes(part for node in graph.nodes for part in (node.parts or (node,)))
        self.device, self._fallback = device, fallback
        self.refused: dict[str, str] = {
            node.key: "no meaning of this name" for node in self.graph.nodes if registry.find(node.domain, node.op) is None
        }
        self._resident: dict[str, Any] = {}
        self._kept: dict[str, dict[Hashable, Any]] = {}
        self._fused: dict[Hashable, Fused | None] = {}
        self._lock = ForkLock()
        self._groups = self._plan(fusion)

    @property
    def fused(self) -> int:
        """Nodes that share a kernel with others."""
        return sum(len(group.nodes) for group in self._groups if len(group.nodes) > 1)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Fresh outputs by name. Inputs are C-contiguous arrays of the model's types. `InputError` where a request does not fit a node."""
        values = Values(self, inputs)
        with self.device.active(), np.errstate(all="ignore"):
            for group in self._groups:
                if len(group.nodes) == 1 or not self._run_fused(group, values):
                    for node in group.nodes:
                        self._run_node(node, values)
                values.drop(group.frees)
            outputs = {signature.name: self._output(signature.name, values) for signature in self.graph.outputs}
            if values.outside:
                self._refuse_outside(self.device.download(self.device.xp.stack(values.outside)))
            return outputs

    def price(self, inputs: Mapping[str, Any], runs: int = 5) -> list[Price]:
        """The whole call, copies included: the fastest of a few runs."""
        fastest = min(_timed(lambda: self.run(inputs)) for _ in range(runs))
        return [Price(True, len(self.graph.nodes), fastest, f"{len(self.graph.nodes)} nodes on {self.device.statistics().get('device')}")]

    def resident(self, name: str) -> Any:
        """A constant on the device."""
        array = self._resident.get(name)
        if array is None:
            constant = self.graph.constants[name]
            if constant.dtype.name not in ITEM_BYTES:
                raise NotCompiled(f"{name!r} of {constant.dtype}")
            with self._lock.held():  # one copy, however many calls ask for it first
                array = self._resident.get(name)
                if array is None:
                    array = self._resident[name] = self.device.upload(constant)
        return array

    def statistics(self) -> dict[str, Any]:
        """The device's, and how many nodes share a kernel."""
        return {**self.device.statistics(), "fused_nodes": self.fused}

    def close(self) -> None:
        """Let the device's copies of the weights go."""
        self._resident.clear()
        self._kept.clear()
        self.device.close()

    def _plan(self, fusion: bool) -> tuple[Group, ...]:
        def fusible(node: Node) -> bool:
            meaning = registry.find(node.domain, node.op)
            return meaning is not None and meaning.formula is not None

        parts = chains(self.graph, fusible) if fusion else [[node] for node in self.graph.nodes]
        last: dict[str, int] = {}
        for index, nodes in enumerate(parts):
            for node in nodes:
                last.update(dict.fromkeys((*node.reads, *(name for name in node.outputs if name)), index))
        kept = {signature.name for signature in self.graph.outputs}
        frees: dict[int, list[str]] = {}
        for name, index in last.items():
            if name not in kept:
                frees.setdefault(index, []).append(name)
        return tuple(Group(tuple(nodes), external(nodes), tuple(frees.get(index, ()))) for index, nodes in enumerate(parts))

    def _refuse_outside(self, outside: Iterable[Any]) -> None:
        if any(outside):
            raise IndexRangeError(IndexRangeError.MESSAGE)

    def _output(self, name: str, values: Values) -> Any:
        if name in values.device:
            return self.device.download(values.device[name])
        value = values.on_host(name)
        return value.copy() if isinstance(value, np.ndarray) else value

    def _run_node(self, node: Node, values: Values) -> None:
        meaning = registry.find(node.domain, node.op)
        if meaning is not None:
            try:
                self._evaluate(node, meaning, values)
                return
            except NotCompiled as reason:
                self.refused[node.key] = str(reason)
            except MALFORMED as error:
                # Shapes or attributes that contradict each other: the fallback says so in the words of the node.
                self.refused[node.key] = f"attributes or shapes that do not fit: {' '.join(str(error).split())[:100]}"
        results = self._fallback.run(node, {name: values.on_host(name) for name in node.reads})
        values.host.update({name: result for name, result in zip(node.outputs, results, strict=False) if name})

    def _evaluate(self, node: Node, meaning: Meaning, values: Values) -> None:
        present = [name for name in node.inputs if name]
        if node.op in SHAPES and not node.domain:
            call = Call(np, node, [values.either(name) for name in present], fresh)
            values.host[node.key] = meaning.evaluate(call)[0]
            values.known.add(node.key)
            return
        if present and all(values.is_known(name) for name in present) and not _grows(node, values):
            call = Call(np, node, [values.on_host(name) if name else None for name in node.inputs], fresh)
            found = [None if array is None else np.asarray(array) for array in meaning.evaluate(call)]
            self._refuse_outside(call.outside)
            named = {name: array for name, array in zip(node.outputs, found, strict=False) if name}
            values.host.update(named)
            values.known.update(name for name, array in named.items() if array is not None and array.size <= KNOWN_ELEMENTS)
            return
        inputs = [
            None if not name else values.on_host(name) if position in meaning.host else values.on_device(name)
            for position, name in enumerate(node.inputs)
        ]
        results = meaning.evaluate(Call(self.device.xp, node, inputs, self._keeper(node), values.outside))
        if len(results) < len(node.outputs):
            raise NotCompiled(f"{len(node.outputs)} outputs asked for, {len(results)} known")
        values.device.update({name: self.device.xp.asarray(r) for name, r in zip(node.outputs, results, strict=False) if name})

    def _keeper(self, node: Node) -> Callable[[Hashable, Callable[[], Array]], Any]:
        kept = self._kept.setdefault(node.key, {})

        def keep(key: Hashable, make: Callable[[], Array]) -> Any:
            array = kept.get(key)
            if array is None:
                array = self.device.upload(np.ascontiguousarray(make()))
                self._remember(kept, key, array, KEPT_ARRAYS)
            return array

        return keep

    def _run_fused(self, group: Group, values: Values) -> bool:
        """The group as one kernel; `False` where its types or shapes ask for its nodes one by one."""
        if all(values.is_known(name) for name in group.reads):
            return False
        try:
            arrays = [values.on_device(name) for name in group.reads]
        except NotCompiled:
            return False
        fused = self._fused_for(group, tuple((array.dtype.name, array.shape) for array in arrays))
        if fused is None:
            return False
        xp = self.device.xp
        y = xp.empty(fused.shape, fused.dtype)
        if fused.count:
            arguments = [*(xp.ascontiguousarray(array) for array in arrays), y, *fused.numbers]
            self.device.launch(fused.kernel.source, fused.kernel.name, fused.count, arguments)
        values.device[group.nodes[-1].key] = y
        return True

    def _fused_for(self, group: Group, types: tuple[tuple[str, tuple[int, ...]], ...]) -> Fused | None:
        """The group's kernel for inputs of these types; `None` where its nodes must run one by one."""
        key = (group.nodes[-1].key, types)
        if key not in self._fused:
            fused = _fuse(group, types)
            self._remember(self._fused, key, fused, KEPT_KERNELS)
            return fused
        return self._fused.get(key)  # `None` also where another thread has just dropped it: one by one is as right

    def _remember(self, table: dict[Hashable, Any], key: Hashable, value: Any, most: int) -> None:
        """Put `value` into a table that keeps the `most` newest."""
        with self._lock.held():
            while len(table) >= most and key not in table:
                table.pop(next(iter(table)))
            table[key] = value


def _fuse(group: Group, types: Sequence[tuple[str, tuple[int, ...]]]) -> Fused | None:
    dtypes, shapes = [dtype for dtype, _ in types], [shape for _, shape in types]
    try:
        statements = _statements(group, dtypes)
        shape = np.broadcast_shapes(*shapes)
        kernel = render(statements, dtypes, loops(shape, shapes, [False] * len(shapes)))
    except (NotCompiled, *MALFORMED):
        return None
    count = math.prod(shape)
    return Fused(kernel, shape, statements[-1].formula.output, count, tuple(np.int64(number) for number in (count, *kernel.numbers)))


def _grows(node: Node, values: Values) -> bool:
    """Whether a node may make a tensor from a few numbers that is too large to be worked out on the host."""
    if node.domain or node.op not in GROWING:
        return False
    if node.op not in ("ConstantOfShape", "Expand"):
        return True
    return math.prod(max(1, int(d)) for d in np.asarray(values.on_host(node.inputs[-1])).reshape(-1)) > KNOWN_ELEMENTS


def _statements(group: Group, dtypes: Sequence[str]) -> list[Statement]:
    """The group's formulas, over the inputs in `group.reads` and each other. Raises `NotCompiled`."""
    kinds = dict(zip(group.reads, dtypes, strict=True))
    numbers = {name: position for position, name in enumerate(group.reads)}
    statements: list[Statement] = []
    for node in group.nodes:
        meaning = registry.find(node.domain, node.op)
        if meaning is None or meaning.formula is None:
            raise NotCompiled(f"{node.op} has no formula")
        formula = meaning.formula(node, [kinds[name] if name else "" for name in node.inputs])
        statements.append(Statement(formula, tuple(numbers[name] for name in node.inputs if name)))
        kinds[node.key], numbers[node.key] = formula.output, ~(len(statements) - 1)
    return statements


def _timed(call: Callable[[], object]) -> int:
    begin = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begin
