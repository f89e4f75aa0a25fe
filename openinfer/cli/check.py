"""`openinfer check MODEL`: what runs compiled, what runs on the fallback and at what measured price, before anything is deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from openinfer.cli.output import ConfigFile, Json, print_json, print_table
from openinfer.config import write_atomically
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
    json: Json = False,
) -> None:
    """Show the versions, the signature, the memory plan, and every operator that is not compiled, with its measured time at batch 1."""
    from openinfer.engine import load

    if dump is not None:
        Path(dump).mkdir(parents=True, exist_ok=True)
    graphs: dict[str, str] = {}
    with load(model, config, watch=lambda name, graph: graphs.update({name: text(graph)})) as engine:
        inputs = example(engine.inputs, np.random.default_rng(0), 1)
        priced = engine.price(inputs)
        statistics = engine.statistics()
        written = _write(Path(dump), graphs, engine.sources()) if dump is not None else []
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
                "written": written,
            }
        )
        return
    print(f"model   {stated}; read by openinfer {__version__}")
    for kind, signatures in (("input", engine.inputs), ("output", engine.outputs)):
        for signature in signatures:
            print(f"{kind:8}{signature.name}: {describe(signature)}")
    print(f"memory  {statistics.arena_bytes} bytes for intermediate tensors, {statistics.plan_gap:.3f}× the least that is possible")
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


def _write(folder: Path, graphs: Mapping[str, str], sources: Sequence[str]) -> list[str]:
    """One text file for the graph after each pass, in order, and one Python file for each generated program; the paths."""
    files = {f"{index:02}-{name.replace(' ', '-')}.txt": graph for index, (name, graph) in enumerate(graphs.items())}
    files |= {f"program-{index}.py": source for index, source in enumerate(sources)}
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [str(folder / name) for name in files]
