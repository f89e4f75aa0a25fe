"""Runs a whole graph: one native program where every node is compiled, otherwise native segments with fallback nodes between them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from openinfer.codegen.lowering import FOLDED, Refused
from openinfer.config import Config
from openinfer.ir.graph import Graph, Node, Signature, TensorType
from openinfer.ops import registry
from openinfer.ops._base import Target
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.pool import Pool
from openinfer.runtime.program import Instance, Program

ROW_NS = 200_000


@dataclasses.dataclass(frozen=True)
class Segment:
    """Consecutive nodes that run the same way."""

    nodes: tuple[Node, ...]
    program: Program | None

    @property
    def writes(self) -> tuple[str, ...]:
        """Values that later segments or the caller may read."""
        if self.program is not None:
            return tuple(signature.name for signature in self.program.graph.outputs)
        return tuple(name for node in self.nodes for name in node.outputs if name)


@dataclasses.dataclass(frozen=True)
class Price:
    """Measured time of one segment: the fastest of a few runs."""

    compiled: bool
    nodes: int
    nanoseconds: int
    detail: str


class Executor:
    """Graph → results, by name. Safe to call from several threads."""

    def __init__(self, graph: Graph, target: Target, config: Config, fallback: Fallback, pool: Pool | None) -> None:
        self.graph, self._target, self._config, self._fallback = graph, target, config, fallback
        self._pool = pool
        self.refused: dict[str, str] = {
            node.outputs[0]: "no compiled operator of this name"
            for node in graph.nodes
            if registry.find(node.domain, node.op) is None and (node.domain or node.op not in FOLDED)
        }
        self._lock = threading.Lock()
        self.segments = self._partition()

    @property
    def program(self) -> Program | None:
        """The one program that is the whole graph, or `None` where there are several segments."""
        whole = len(self.segments) == 1 and self.segments[0].program is not None
        return self.segments[0].program if whole else None

    def refuse(self, refusal: Refused) -> None:
        """Send a node to the fallback from now on."""
        with self._lock:
            self.refused[refusal.node.outputs[0]] = refusal.reason
            self.segments = self._partition()

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Fresh outputs by name. Inputs are C-contiguous arrays of the model's types."""
        values: dict[str, Any] = {**self.graph.constants, **inputs}
        done = False
        while not done:
            try:
                for segment in self.segments:
                    if not all(name in values for name in segment.writes):
                        self._run_segment(segment, values)
                done = True
            except Refused as refusal:
                self.refuse(refusal)
        return {signature.name: values[signature.name] for signature in self.graph.outputs}

    def price(self, inputs: Mapping[str, Any], runs: int = 5) -> list[Price]:
        """What each segment costs for these inputs, in order."""
        self.run(inputs)
        values: dict[str, Any] = {**self.graph.constants, **inputs}
        prices: list[Price] = []
        for segment in self.segments:
            call = functools.partial(self._run_segment, segment, values)
            call()
            fastest = _fastest(call, runs)
            if segment.program is not None:
                with _leased(segment.program, values) as (native, _):
                    fastest = _fastest(native, runs)
            counts = collections.Counter(node.op for node in segment.nodes)
            detail = ", ".join(f"{op} ×{count}" if count > 1 else op for op, count in counts.items())
            if segment.program is None:
                detail += f" ({self.refused[segment.nodes[0].outputs[0]]})"
            prices.append(Price(segment.program is not None, len(segment.nodes), fastest, detail))
        return prices

    def _run_segment(self, segment: Segment, values: dict[str, Any]) -> None:
        if segment.program is not None:
            values.update(run_program(segment.program, values))
            return
        for node in segment.nodes:
            results = self._fallback.run(node, {name: values[name] for name in node.reads})
            values.update({name: result for name, result in zip(node.outputs, results, strict=False) if name})

    def _partition(self) -> tuple[Segment, ...]:
        nodes = self.graph.nodes
        if not nodes:
            return (Segment((), Program(self.graph, self._target, self._config, self._fallback.evaluate, self._pool)),)
        return tuple(
            self._segment(start, stop, native) for start, stop, native in _runs([node.outputs[0] not in self.refused for node in nodes])
        )

    def _segment(self, start: int, stop: int, native: bool) -> Segment:
        nodes = self.graph.nodes[start:stop]
        if not native:
            return Segment(nodes, None)
        if stop - start == len(self.graph.nodes):
            return Segment(nodes, Program(self.graph, self._target, self._config, self._fallback.evaluate, self._pool))
        written = {name for node in nodes for name in node.outputs if name}
        read = dict.fromkeys(name for node in nodes for name in node.reads if name not in written and name not in self.graph.constants)
        later = {name for node in self.graph.nodes[stop:] for name in node.reads} | {signature.name for signature in self.graph.outputs}
        graph = Graph(
            f"{self.graph.name}[{start}:{stop}]",
            tuple(Signature(name, "", None) for name in read),
            tuple(Signature(name, "", None) for name in written if name in later),
            nodes,
            {name: self.graph.constants[name] for node in nodes for name in node.reads if name in self.graph.constants},
        )
        return Segment(nodes, Program(graph, self._target, self._config, self._fallback.evaluate, self._pool))


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
