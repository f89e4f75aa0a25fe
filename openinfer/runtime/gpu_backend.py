"""The model on a GPU, where `engine.backend` asks for one and there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openinfer.config import Config
from openinfer.errors import GpuUnavailableError, InputError, MemoryBudgetError
from openinfer.ir.graph import Graph
from openinfer.memory.arena import empty
from openinfer.memory.gpu_pools import connect
from openinfer.passes.pipeline import optimize
from openinfer.runtime.backend import FastPath, Statistics, no_fast_path, one_by_one
from openinfer.runtime.bound_call import BoundCall, placed
from openinfer.runtime.executor import Price
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.gpu_executor import ArrayDevice, GpuExecutor

Connect = Callable[[str, int], ArrayDevice]


def device_for(config: Config, connecting: Connect = connect) -> tuple[ArrayDevice | None, str]:
    """The device, `None` for the CPU, and a sentence that says which backend it is and why.

    `gpu` raises `GpuUnavailableError` where there is none, and `MemoryBudgetError` where it is full; `auto` then takes the CPU.
    """
    try:
        device = connecting(config.memory.gpu_pool, config.memory.gpu_budget_mb << 20)
    except (GpuUnavailableError, MemoryBudgetError) as error:
        if config.engine.backend == "gpu":
            raise
        return None, f"cpu: {error}"
    return device, "gpu"


class GpuBackend:
    """Runs a graph on `device`, by the operators' meanings."""

    def __init__(
        self, graph: Graph, config: Config, fallback: Fallback, device: ArrayDevice, watch: Callable[[str, Graph], None] | None = None
    ) -> None:
        knobs = config.engine
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.fast: FastPath = no_fast_path
        optimized = optimize(graph, knobs.precision, fallback.evaluate, {}, watch, knobs.float64_layers)
        self._executor = GpuExecutor(optimized, device, fallback, knobs.gpu_fusion)

    @property
    def program(self) -> None:
        """No native program."""
        return None

    def run(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Fresh outputs by name, on the host."""
        return self._executor.run(arrays)

    def run_many(self, requests: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One call a request."""
        return one_by_one(self.run, requests)

    def bind(self, arrays: dict[str, Any], outputs: Mapping[str, Any] | None) -> BoundCall:
        """A call that copies the inputs to the device and the outputs back. It runs once now, for the shapes of the outputs."""
        made = placed(self._executor.run(arrays), outputs, arrays)

        def call() -> None:
            for name, result in self._executor.run(arrays).items():
                if result.shape != made[name].shape:
                    raise InputError(f"output {name!r}: found shape {result.shape}, bound was {made[name].shape}; use run")
                made[name][...] = result

        return BoundCall(call, arrays, made)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An array on a cache line of the host."""
        return empty(shape, dtype)

    def price(self, arrays: dict[str, Any]) -> list[Price]:
        """The whole call's, copies included."""
        return self._executor.price(arrays)

    def sources(self) -> list[str]:
        """None: kernels are made when the first request shows their types."""
        return []

    def start_threads(self) -> None:
        """There are none."""

    def statistics(self) -> Statistics:
        """The device's, and the nodes on the fallback."""
        return Statistics(fallback=dict(self._executor.refused), backend="gpu", device=self._executor.statistics())

    def close(self) -> None:
        """Let the device's copies of the weights go."""
        self._executor.close()
