"""The model as native programs in this process."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.codegen.lowering import Refused
from openinfer.config import Config
from openinfer.errors import InputError, MemoryBudgetError
from openinfer.fork_lock import ForkLock
from openinfer.ir.graph import Graph, TensorType
from openinfer.machine import host
from openinfer.memory.arena import empty
from openinfer.ops import fusible
from openinfer.ops._base import Target
from openinfer.passes.pipeline import optimize
from openinfer.runtime.backend import FastPath, Statistics, no_fast_path, one_by_one
from openinfer.runtime.bound_call import BoundCall, bound_natively, placed
from openinfer.runtime.entry import Runner
from openinfer.runtime.executor import Executor, Price, address
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.pool import Pool
from openinfer.runtime.program import Program
from openinfer.runtime.signature import probes

KEPT_RUNNERS = 32


class NativeBackend:
    """Compiles what can be compiled without seeing a request; other shapes are compiled, or sent to the fallback, when they come.

    `name` tells `Statistics.backend` why the model runs here. Raises `MemoryBudgetError` where the model does not fit its budget.
    """

    def __init__(
        self, graph: Graph, config: Config, fallback: Fallback, name: str = "cpu", watch: Callable[[str, Graph], None] | None = None
    ) -> None:
        knobs = config.engine
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.fast: FastPath = no_fast_path
        self._name, self._budget = name, config.memory.budget_bytes
        optimized = optimize(graph, knobs.precision, fallback.evaluate, fusible.ACTIVATIONS, watch, knobs.float64_layers)
        self._pool = Pool(knobs.threads, wait=knobs.wait, spin_us=knobs.spin_us, pin=knobs.pin) if knobs.threads > 1 else None
        self._runners: dict[tuple[tuple[int, ...], ...], Runner] = {}
        self._lock = ForkLock()
        self._closed = False
        try:
            self._executor = Executor(optimized, Target(host(), knobs), config, fallback, self._pool)
            self._executor.charge_constants()
            reference = weakref.ref(self)
            self._executor.memory.reclaim = lambda: (backend := reference()) is not None and backend._let_go()
            self._compile()
        except BaseException:
            self.close()
            raise

    @property
    def program(self) -> Program | None:
        """The program that is the whole model; `None` where part of it is on the fallback."""
        return self._executor.program

    def run(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Fresh outputs by name; requests of these shapes take the fast path from now on."""
        key = tuple(array.shape if isinstance(array, np.ndarray) else () for array in arrays.values())
        runner = self._runners.get(key)
        if runner is None:
            results = self._executor.run(arrays)
            self._keep_instance(key, arrays)
            return results
        self._keep(key, runner)
        again = runner.run(arrays)
        return again if again is not None else self._executor.run(arrays)

    def run_many(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One call a request."""
        return one_by_one(self.run, requests)

    def bind(self, arrays: dict[str, Any], outputs: Mapping[str, Any] | None) -> BoundCall:
        """The native entry itself, on a table of its own. `InputError` where a node runs on the fallback."""
        program = self.program
        if program is None:
            raise InputError(
                f"bind needs a model that is compiled as a whole; on the fallback: {', '.join(self._executor.refused)}; use run"
            )
        try:
            instance = program.instance(tuple(TensorType(array.dtype.name, array.shape) for array in arrays.values()))
        except Refused as refusal:
            raise InputError(
                f"bind: {refusal.node.op} {refusal.node.key!r} is not compiled for these shapes: {refusal.reason}; use run"
            ) from None
        made = placed({name: np.empty(kind.shape, kind.dtype) for name, kind in instance.outputs}, outputs, arrays)
        context = instance.context()
        address(context.table, instance, arrays, made)
        return bound_natively(context.call, arrays, made)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An array on a cache line."""
        return empty(shape, dtype)

    def price(self, arrays: dict[str, Any]) -> list[Price]:
        """Every segment's, compiled or on the fallback."""
        return self._executor.price(arrays)

    def sources(self) -> list[str]:
        """The generated source of every compiled variant; kernels are named, not shown."""
        return [variant.built.text for program in self._programs() for variant in program.variants]

    def start_threads(self) -> None:
        """Start the threads of the pool."""
        if self._pool is not None:
            self._pool.start()

    def statistics(self) -> Statistics:
        """Programs, arenas, the threads and the memory pool."""
        instances = [instance for program in self._programs() for instance in program.instances.values()]
        variants = [variant for program in self._programs() for variant in program.variants]
        return Statistics(
            contexts=sum(instance.contexts for instance in instances),
            shapes=len(instances),
            arena_bytes=sum(instance.layout.peak_bytes * instance.contexts for instance in instances),
            plan_gap=max((instance.layout.gap for instance in instances), default=1.0),
            plan_s=sum(program.plan_s for program in self._programs()),
            compiled=sum(not variant.built.cached for variant in variants),
            loaded_from_cache=sum(variant.built.cached for variant in variants),
            compile_s=sum(variant.seconds for variant in variants),
            fallback=dict(self._executor.refused),
            pool=self._pool.statistics() if self._pool is not None else {},
            backend=self._name,
            memory=self._executor.memory.statistics(),
        )

    def close(self) -> None:
        """End the pool's threads, and drop what the fast paths keep ready."""
        with self._lock.held():
            self._closed = True
            self.fast = no_fast_path
            self._runners.clear()
        if self._pool is not None:
            self._pool.close()

    def _programs(self) -> list[Program]:
        return [segment.program for segment in self._executor.segments if segment.program is not None]

    def _compile(self) -> None:
        """Compile for example shapes, as far as they are known; a node that no example can be compiled with goes to the fallback."""
        examples = probes(self.inputs)
        while examples and (program := self.program) is not None:
            try:
                if self._budget:
                    program.preflight(min(examples, key=lambda types: sum(kind.size_bytes for kind in types)))
                program.prepare(examples)
                return
            except Refused as refusal:
                # Sizes that the model names apart may have to be the same, as the batches of a recurrent layer's input and state.
                with contextlib.suppress(Refused):
                    program.prepare(probes(self.inputs, equal=True))
                    return
                self._executor.refuse(refusal)

    def _keep_instance(self, key: tuple[tuple[int, ...], ...], arrays: Mapping[str, Any]) -> None:
        """Make a runner for types that have just run; they may have run on the fallback, and the budget may have no room for one."""
        program = self.program
        if program is None or not all(isinstance(array, np.ndarray) for array in arrays.values()):
            return
        instance = program.instances.get(tuple(TensorType(array.dtype.name, array.shape) for array in arrays.values()))
        if instance is not None:
            instance.let_go()  # the runner has an arena of its own
            with contextlib.suppress(MemoryBudgetError):
                self._keep(key, instance.runner())

    def _keep(self, key: tuple[tuple[int, ...], ...], runner: Runner) -> None:
        """Make this the runner of the fast path, unless the engine was closed meanwhile."""
        with self._lock.held():
            if self._closed:
                return
            self._runners.pop(key, None)
            while len(self._runners) >= KEPT_RUNNERS:
                self._runners.pop(next(iter(self._runners)))
            self._runners[key] = runner
            self.fast = runner.run

    def _let_go(self) -> bool:
        """For the budget: drop what calls that are not running keep ready, the last shape's fast path last; whether there was anything."""
        with self._lock.held():
            others = [key for key, runner in self._runners.items() if runner.run is not self.fast]
            for key in others:
                del self._runners[key]
            if self._executor.let_go() or others:
                return True
            found = bool(self._runners)
            self._runners.clear()
            self.fast = no_fast_path
            return found
