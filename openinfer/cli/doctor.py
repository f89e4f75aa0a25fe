"""`openinfer doctor`: the machine as the engine sees it, the versions, the object cache; with `--sandbox`, whether anything gets out."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Annotated, Any

import typer

from openinfer.cli.output import Json, print_json, print_table
from openinfer.codegen import object_cache
from openinfer.errors import OpenInferError, SandboxError
from openinfer.machine import host
from openinfer.memory.gpu_pools import connect
from openinfer.version import __version__

_STOPPED = {True: "stopped", False: "OUT", None: "NOT JUDGED"}


def doctor(
    clear_cache: Annotated[bool, typer.Option("--clear-cache", help="Remove every compiled object.")] = False,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Attack a live worker from within; exit 1 unless every attack is stopped.")
    ] = False,
    json: Json = False,
) -> None:
    """Print what this machine offers and what is installed."""
    if sandbox:
        _attack(json)
        return
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
        "gpu": _gpu(),
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


def _attack(json: bool) -> None:
    """Run the escape suite as every user that this one can be; exit 1 where an attack gets out or cannot be judged."""
    from openinfer.sandbox.attacks import suite

    results = []
    for name, (user, lock) in suite.identities().items():
        try:
            verdicts, given_up = suite.run(user, lock)
        except SandboxError as error:
            verdicts, given_up = [suite.Verdict("start the sandbox", "start", None, str(error))], ()
        results.append((name, verdicts, given_up))
    failed = sum(verdict.stopped is not True for _, verdicts, _ in results for verdict in verdicts)
    if json:
        print_json([{"as": name, "given_up": given_up, "attacks": verdicts} for name, verdicts, given_up in results])
    else:
        rows = [
            (name, verdict.group, verdict.name, _STOPPED[verdict.stopped], verdict.how[:100])
            for name, verdicts, _ in results
            for verdict in verdicts
        ]
        print_table(("as", "group", "attack", "", "how"), rows)
        for name, verdicts, given_up in results:
            stopped = sum(verdict.stopped is True for verdict in verdicts)
            print(f"as {name}: {stopped} of {len(verdicts)} attacks stopped; the worker gave up: {', '.join(given_up) or 'nothing'}")
    if failed:
        raise typer.Exit(1)


def _gpu() -> str:
    """The device and the memory that `engine.backend = "gpu"` would take, or what is missing."""
    try:
        found = connect("auto", 0).statistics()
    except OpenInferError as error:
        return f"none: {str(error).split('; ')[0].removeprefix('no usable GPU: ')}"
    return f"{found['device']}, driver {found['driver']}, {found['pool']} memory: {found['reason']}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
