"""`openinfer check MODEL`: what runs compiled, what runs on the fallback and at what measured price, before anything is deployed."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from openinfer.cli.output import ConfigFile, Json, print_json, print_table
from openinfer.runtime.signature import describe, example


def check(
    model: Annotated[str, typer.Argument(help="ONNX file.")],
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Show the signature, the memory plan, and every operator that is not compiled, with its measured time at batch 1."""
    from openinfer.engine import load

    with load(model, config) as engine:
        inputs = example(engine.inputs, np.random.default_rng(0), 1)
        priced = engine.price(inputs)
        statistics = engine.statistics()
    total = sum(item.nanoseconds for item in priced) or 1
    if json:
        print_json(
            {
                "inputs": {s.name: describe(s) for s in engine.inputs},
                "outputs": {s.name: describe(s) for s in engine.outputs},
                "compiled_nodes": sum(item.nodes for item in priced if item.compiled),
                "fallback_nodes": sum(item.nodes for item in priced if not item.compiled),
                "segments": priced,
                "arena_bytes": statistics.arena_bytes,
                "plan_gap": statistics.plan_gap,
            }
        )
        return
    for kind, signatures in (("input", engine.inputs), ("output", engine.outputs)):
        for signature in signatures:
            print(f"{kind:8}{signature.name}: {describe(signature)}")
    print(f"memory  arena {statistics.arena_bytes} bytes, plan {statistics.plan_gap:.3f} of the lower bound")
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
