"""Where an engine runs: on the CPU, or on the GPU that `engine.backend` asks for."""

from __future__ import annotations

from collections.abc import Callable

from openinfer.config import Config
from openinfer.errors import GpuUnavailableError, MemoryBudgetError
from openinfer.memory.gpu_pools import connect
from openinfer.runtime.gpu_executor import ArrayDevice

Connect = Callable[[str, int], ArrayDevice]


def device_for(config: Config, connecting: Connect = connect) -> tuple[ArrayDevice | None, str]:
    """The device, `None` for the CPU, and a sentence that says which backend it is and why.

    `gpu` raises `GpuUnavailableError` where there is none, and `MemoryBudgetError` where it is full; `auto` then takes the CPU.
    """
    if config.engine.backend == "cpu":
        return None, "cpu"
    try:
        device = connecting(config.memory.gpu_pool, config.memory.gpu_budget_mb << 20)
    except (GpuUnavailableError, MemoryBudgetError) as error:
        if config.engine.backend == "gpu":
            raise
        return None, f"cpu: {error}"
    return device, "gpu"
