"""Every workload by name. A new one is a folder and a line here."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path

from openinfer.workloads.workload import Workload, load

from openinfer.errors import WorkloadError, suggest

# Workload → module that has `generate`, `export_raw` and maybe `open_store` and `OTHERS` (see `Workload`); workload.toml lies beside it.
MODULES = {name: f"openinfer.workloads.{name}.traffic" for name in ("edge", "hft", "imaging", "legacy", "recommendation", "security")}


def names() -> list[str]:
    """The workloads that exist."""
    return sorted(MODULES)


@functools.cache
def get(name: str) -> Workload:
    """The workload; `WorkloadError` for an unknown name."""
    if name not in MODULES:
        raise WorkloadError(f"unknown workload {name!r}; {suggest(name, MODULES)}")
    module = importlib.import_module(MODULES[name])
    parts = getattr(module, "open_store", None), getattr(module, "OTHERS", {})
    return load(Path(str(module.__file__)).parent, module.generate, module.export_raw, *parts)
