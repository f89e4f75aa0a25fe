"""`openinfer check MODEL`: what runs compiled, what runs on the fallback and at what measured price, before anything is deployed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from openinfer.cli.output import ConfigFile, Json, print_json, print_table
from openinfer.config import Config, write_atomically
from openinfer.errors import ConfigError, MemoryBudgetError
from openinfer.frontend.versions import versions_of
from openinfer.ir.text import text
from openinfer.runtime.signature import describe, example
from openinfer.version import __version__


def check(
    model: Annotated[str, typer.Argument(help="ONNX file.")],
    config: ConfigFile = None,
    dump: Annotated[
        str | None, typer.Option("--dump", help="Folder to write the graph after each pass and the generated programs to.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Budget, as 512MB: exit 1 where the model does not fit at batch 1.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the versions, the signature, the memory plan, and every operator that is not compiled, with its measured time at batch 1."""
    from openinfer.engine import load

    if dump is not None:
        Path(dump).mkdir(parents=True, exist_ok=True)
    graphs: dict[str, str] = {}
    settings = _settings(config, memory)
    try:
        with load(model, settings, watch=lambda name, graph: graphs.update({name: text(graph)})) as engine:
            inputs = example(engine.inputs, np.random.default_rng(0), 1)
            priced = engine.price(inputs)
            statistics = engine.statistics()
            written = _write(Path(dump), graphs, engine.sources()) if dump is not None else []
    except MemoryBudgetError as error:
        if memory is None:
            raise
        print_json({"fits": False, "reason": str(error)}) if json else print(f"does not fit into {memory}: {error}")
        raise typer.Exit(1) from None
    stated = versions_of(model)
    total = sum(item.nanoseconds for item in priced) or 1
    if json:
        print_json(
            {
                "versions": stated,
                "openinfer": __version__,
                "inputs": {s.name: describe(s) for s in engine.inputs},
                "outputs": {s.name: describe(s) for s in engine.outputs},
                "compiled_nodes": sum(item.nodes for item in priced if item.compiled),
                "fallback_nodes": sum(item.nodes for item in priced if not item.compiled),
                "segments": priced,
                "arena_bytes": statistics.arena_bytes,
                "plan_gap": statistics.plan_gap,
                "plan_s": statistics.plan_s,
                "memory": statistics.memory,
                "written": written,
            }
        )
        return
    print(f"model   {stated}; read by openinfer {__version__}")
    for kind, signatures in (("input", engine.inputs), ("output", engine.outputs)):
        for signature in signatures:
            print(f"{kind:8}{signature.name}: {describe(signature)}")
    print(
        f"memory  {statistics.arena_bytes} bytes for intermediate tensors, {statistics.plan_gap:.3f}× the least that is possible; "
        f"planned in {1e3 * statistics.plan_s:.1f} ms"
    )
    pool = statistics.memory
    if pool is not None:
        needed = pool.charged_bytes + pool.high_water_bytes
        fits = f"; fits into {memory}, {pool.budget_bytes - needed} bytes left" if memory is not None else ""
        print(f"        {pool.charged_bytes} bytes for weights, {needed} in all at batch 1{fits}")
    compiled, nodes = sum(item.nodes for item in priced if item.compiled), sum(item.nodes for item in priced)
    print(f"nodes   {compiled} compiled, {nodes - compiled} on the fallback; times at batch 1, the fastest of a few runs")
    rows = [
        (
            "compiled" if item.compiled else "fallback",
            item.nodes,
            f"{item.nanoseconds / 1e3:.1f}",
            f"{100 * item.nanoseconds / total:.0f}%",
            item.detail,
        )
        for item in priced
    ]
    print_table(("runs", "nodes", "µs", "share", "operators"), rows)
    for path in written:
        print(f"wrote {path}")


def _settings(path: str | None, memory: str | None) -> Config:
    """The configuration, with the budget of `--memory`."""
    named = path or os.environ.get("OPENINFER_CONFIG")
    settings = Config.load(named) if named else Config()
    return settings if memory is None else settings.with_knobs({"memory.budget_bytes": parse_bytes(memory)})


def parse_bytes(text: str) -> int:
    """Bytes of a size such as 512MB, 1.5 GB, 64k or 1048576; units are powers of 1024. `ConfigError` for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE | re.ASCII)
    size = int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")) if match and len(match[1]) <= 18 else 0
    if not size:
        raise ConfigError(f"found a size of {text!r}; allowed: a number above 0 with a unit, as 512MB or 2GB")
    return size


def _write(folder: Path, graphs: Mapping[str, str], sources: Sequence[str]) -> list[str]:
    """One text file for the graph after each pass, in order, and one Python file for each generated program; the paths."""
    files = {f"{index:02}-{name.replace(' ', '-')}.txt": graph for index, (name, graph) in enumerate(graphs.items())}
    files |= {f"program-{index}.py": source for index, source in enumerate(sources)}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [str(folder / name) for name in files]
