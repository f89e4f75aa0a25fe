"""Runs a whole graph: one native program where every node is compiled, otherwise native segments with fallback nodes between them."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.codegen.lowering import FOLDED, Refused
from openinfer.config import Config
from openinfer.fork_lock import ForkLock
from openinfer.ir.graph import Graph, Node, Signature, TensorType
from openinfer.memory.pool import Pool as MemoryPool
from openinfer.ops import registry
from openinfer.ops._base import Target
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.pool import Pool
from openinfer.runtime.program import KEPT_INSTANCES, Instance, Program, memory_policy

ROW_NS = 200_000


@dataclasses.dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive nodes that run the same way: one native program, or one by one on the fallback for `reason`.

    A program may be refused for the types of one request. Such requests run on the segment's `splits` instead, which depend on the refused
    node alone; `detours` remembers which types take which. The segment itself stays as it is, so no request changes another's answer.
    """

    nodes: tuple[Node, ...]
    program: Program | None
    reason: str = ""
    splits: dict[str, Split] = dataclasses.field(default_factory=dict)
    detours: dict[tuple[object, ...], Split] = dataclasses.field(default_factory=dict)

    @property
    def writes(self) -> tuple[str, ...]:
        """Values that later segments or the caller may read."""
        if self.program is not None:
            return tuple(signature.name for signature in self.program.graph.outputs)
        return tuple(name for node in self.nodes for name in node.outputs if name)


@dataclasses.dataclass(frozen=True)
class Split:
    """A segment without one refused node: the node runs on the fallback, or as the parts that it was fused from."""

    refused: Mapping[str, str]
    segments: tuple[Segment, ...]


@dataclasses.dataclass(frozen=True)
class Price:
    """Measured time of one segment: the fastest of a few runs."""

    compiled: bool
    nodes: int
    nanoseconds: int
    detail: str


class Executor:
    """Graph → results, by name. Safe to call from several threads."""

    def __init__(
        self, graph: Graph, target: Target, config: Config, fallback: Fallback, pool: Pool | None, memory: MemoryPool | None = None
    ) -> None:
        self.graph, self._target, self._config, self._fallback = graph, target, config, fallback
        self._pool = pool
        self.memory = memory or MemoryPool(memory_policy(config))
        self._refused: dict[str, str] = {
            node.key: "no compiled operator of this name"
            for node in graph.nodes
            if registry.find(node.domain, node.op) is None and (node.domain or node.op not in FOLDED)
        }
        self._lock = ForkLock()
        self._roots = self._partition_all()

    @property
    def program(self) -> Program | None:
        """The one program that is the whole graph, or `None` where there are several segments."""
        return self._roots[0].program if len(self._roots) == 1 else None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Every segment, those that single requests are split into among them."""
        return tuple(_all(self._roots))

    @property
    def refused(self) -> dict[str, str]:
        """Nodes that no request has run compiled → why: refused at load, or in every request so far."""
        return {**self._refused, **_refused(self._roots)}

    def charge_constants(self) -> None:
        """Count the model's constants against the budget; `MemoryBudgetError` where they do not fit."""
        arrays = [value for value in self.graph.constants.values() if isinstance(value, np.ndarray)]
        self.memory.charge(sum(array.nbytes for array in arrays), f"the constants of {self.graph.name!r}")

    def let_go(self) -> bool:
        """Drop the arenas of calls that are not running; whether there were any."""
        programs = [segment.program for segment in self.segments if segment.program is not None]
        return any([instance.let_go() for program in programs for instance in program.instances.values()])

    def refuse(self, refusal: Refused) -> None:
        """At load: send a node to the fallback from now on, or undo its fusion."""
        with self._lock.held():
            nodes, refused = _without(self.graph.nodes, refusal)
            self.graph = self.graph.with_nodes(nodes)
            self._refused.update(refused)
            self._roots = self._partition_all()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Fresh outputs by name. Inputs are C-contiguous arrays of the model's types."""
        values, leaves = self._evaluate(inputs)
        fresh = {name for leaf in leaves if leaf.program is not None for name in leaf.writes}
        # What the fallback gives may be the caller's memory, a constant of the model, or its own.
        return {s.name: values[s.name] if s.name in fresh else copy.deepcopy(values[s.name]) for s in self.graph.outputs}

    def price(self, inputs: Mapping[str, Any], runs: int = 5) -> list[Price]:
        """What each segment costs for these inputs, in order."""
        values, leaves = self._evaluate(inputs)
        prices: list[Price] = []
        for segment in leaves:
            if segment.program is None:
                fastest = _fastest(functools.partial(self._run_nodes, segment, values), runs)
            else:
                with _leased(segment.program, values) as (native, _):
                    fastest = _fastest(native, runs)
            counts = collections.Counter(node.op for node in segment.nodes)
            detail = ", ".join(f"{op} ×{count}" if count > 1 else op for op, count in counts.items())
            if segment.program is None:
                detail += f" ({segment.reason})"
            prices.append(Price(segment.program is not None, len(segment.nodes), fastest, detail))
        return prices

    def _evaluate(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], list[Segment]]:
        """Every value by name, and the segments that have run."""
        values: dict[str, Any] = {**self.graph.constants, **inputs}
        leaves: list[Segment] = []
        for segment in self._roots:
            self._run_segment(segment, values, leaves)
        return values, leaves

    def _run_segment(self, segment: Segment, values: dict[str, Any], leaves: list[Segment]) -> None:
        if segment.program is None:
            self._run_nodes(segment, values)
            leaves.append(segment)
            return
        types = tuple(_kind(values[signature.name]) for signature in segment.program.graph.inputs)
        split = segment.detours.get(types)
        if split is None:
            try:
                values.update(run_program(segment.program, values))
                leaves.append(segment)
                return
            except Refused as refusal:
                split = self._split(segment, refusal, types)
        for part in split.segments:
            self._run_segment(part, values, leaves)

    def _run_nodes(self, segment: Segment, values: dict[str, Any]) -> None:
        for node in segment.nodes:
            results = self._fallback.run(node, {name: values[name] for name in node.reads})
            values.update({name: result for name, result in zip(node.outputs, results, strict=False) if name})

    def _split(self, segment: Segment, refusal: Refused, types: tuple[object, ...]) -> Split:
        """The segment without the refused node, for all requests of these types."""
        with self._lock.held():
            split = segment.splits.get(refusal.node.key)
            if split is None:
                nodes, refused = _without(segment.nodes, refusal)
                split = Split(refused, self._partition(nodes, segment.writes, refused))
                segment.splits[refusal.node.key] = split
            while len(segment.detours) >= KEPT_INSTANCES:
                segment.detours.pop(next(iter(segment.detours)))
            segment.detours[types] = split
        return split

    def _partition_all(self) -> tuple[Segment, ...]:
        if self._refused:
            return self._partition(self.graph.nodes, [signature.name for signature in self.graph.outputs], self._refused)
        return (self._native(self.graph),)

    def _partition(self, nodes: Sequence[Node], outputs: Sequence[str], refused: Mapping[str, str]) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        for start, stop, native in _runs([node.key not in refused for node in nodes]):
            run = tuple(nodes[start:stop])
            if native:
                later = {name for node in nodes[stop:] for name in node.reads}.union(outputs)
                segments.append(self._native(self._subgraph(f"{self.graph.name}[{start}:{stop}]", run, later)))
            else:
                segments.append(Segment(run, None, refused[run[0].key]))
        return tuple(segments)

    def _native(self, graph: Graph) -> Segment:
        return Segment(graph.nodes, Program(graph, self._target, self._config, self._fallback.evaluate, self._pool, self.memory))

    def _subgraph(self, name: str, nodes: tuple[Node, ...], later: Collection[str]) -> Graph:
        """Some nodes as a graph of their own that writes what is read `later`."""
        constants = self.graph.constants
        written = dict.fromkeys(name for node in nodes for name in node.outputs if name)
        read = dict.fromkeys(name for node in nodes for name in node.reads if name not in written and name not in constants)
        known = {name: constants[name] for node in nodes for part in (node, *node.parts) for name in part.reads if name in constants}
        return Graph(
            name,
            tuple(Signature(name, "", None) for name in read),
            tuple(Signature(name, "", None) for name in written if name in later),
            nodes,
            known,
        )


def _without(nodes: Sequence[Node], refusal: Refused) -> tuple[tuple[Node, ...], dict[str, str]]:
    """The nodes with a refused one undone into its parts, or, where it has none, as it is and named for the fallback."""
    if not refusal.node.parts:
        return tuple(nodes), {refusal.node.key: refusal.reason}
    return tuple(part for node in nodes for part in (node.parts if node.key == refusal.node.key else (node,))), {}


def _all(segments: Sequence[Segment]) -> Iterator[Segment]:
    for segment in segments:
        yield segment
        for split in list(segment.splits.values()):
            yield from _all(split.segments)


def _refused(segments: Sequence[Segment]) -> dict[str, str]:
    """What the splits of programs that have never run leave to the fallback."""
    found: dict[str, str] = {}
    for segment in segments:
        if segment.program is not None and not segment.program.variants:
            for split in list(segment.splits.values()):
                found.update(split.refused)
                found.update(_refused(split.segments))
    return found


def _kind(value: Any) -> object:
    return TensorType(value.dtype.name, value.shape) if isinstance(value, np.ndarray) else type(value)


def run_program(program: Program, values: Mapping[str, Any]) -> dict[str, Any]:
    """One call of a native program with fresh outputs."""
    with _leased(program, values) as (call, outputs):
        call()
    return outputs


@contextlib.contextmanager
def _leased(program: Program, values: Mapping[str, Any]) -> Iterator[tuple[Callable[[], None], dict[str, Any]]]:
    """(call, outputs) of a leased context that reads `values` and writes fresh outputs. Raises `Refused`."""
    arrays: dict[str, Any] = {}
    for signature in program.graph.inputs:
        value = values[signature.name]
        if not isinstance(value, np.ndarray):
            reader = next(node for node in program.graph.nodes if signature.name in node.reads)
            raise Refused(reader, f"{signature.name!r} is a {type(value).__name__}")
        arrays[signature.name] = np.ascontiguousarray(value) if value.ndim else value
    instance = program.instance(tuple(TensorType(array.dtype.name, array.shape) for array in arrays.values()))
    outputs = {name: np.empty(kind.shape, kind.dtype) for name, kind in instance.outputs}
    context = instance.lease()
    try:
        address(context.table, instance, arrays, outputs)
        yield context.call, outputs
    finally:
        instance.release(context)


def _fastest(call: Callable[[], object], runs: int) -> int:
    """ns per call: the fastest of `runs` rows of calls, each row long enough for the clock."""
    begin = time.perf_counter_ns()
    call()
    row = max(1, ROW_NS // max(1, time.perf_counter_ns() - begin))
    rows = []
    for _ in range(runs):
        begin = time.perf_counter_ns()
        for _ in range(row):
            call()
        rows.append((time.perf_counter_ns() - begin) // row)
    return min(rows)


def address(table: Any, instance: Instance, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
    """Write the addresses of the caller's arrays into a table."""
    for name, array in inputs.items():
        table[instance.input_slots[name]] = array.__array_interface__["data"][0]
    for name, array in outputs.items():
        table[instance.output_slots[name]] = array.__array_interface__["data"][0]


def _runs(flags: list[bool]) -> Iterator[tuple[int, int, bool]]:
    start = 0
    for index in range(1, len(flags) + 1):
        if index == len(flags) or flags[index] != flags[start]:
            yield start, index, flags[start]
            start = index
