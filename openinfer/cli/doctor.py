"""`openinfer doctor`: the machine as the engine sees it, the versions, the object cache."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Annotated, Any

import typer

from openinfer.cli.output import Json, print_json
from openinfer.codegen import object_cache
from openinfer.machine import host
from openinfer.version import __version__


def doctor(
    clear_cache: Annotated[bool, typer.Option("--clear-cache", help="Remove every compiled object.")] = False,
    json: Json = False,
) -> None:
    """Print what this machine offers and what is installed."""
    machine = host()
    report: dict[str, Any] = {
        "openinfer": __version__,
        "python": platform.python_version(),
        "cpu": machine.cpu,
        "isa": machine.isa,
        "vector_bytes": machine.vector_bytes,
        "processors": len(machine.processors),
        "l1_bytes": machine.l1_bytes,
        "l2_bytes": machine.l2_bytes,
        "l3_bytes": machine.l3_bytes,
        "fingerprint": machine.fingerprint,
        "cache": str(object_cache.folder()),
        "cached_objects": len(list(object_cache.folder().glob("*.o"))),
    }
    report |= {name: _version(name) for name in ("numpy", "numba", "llvmlite", "onnx", "optuna", "onnxruntime", "lightgbm")}
    if clear_cache:
        report["removed_objects"] = object_cache.clear()
    if json:
        print_json(report)
    else:
        for key, value in report.items():
            bytes_of_cache = key.startswith("l") and key.endswith("_bytes")
            name, shown = (f"{key[:2].upper()} cache", f"{value >> 10} KiB") if bytes_of_cache else (key.replace("_", " "), value)
            print(f"{name:18}{shown}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
