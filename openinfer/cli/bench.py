"""`openinfer bench MODEL --against onnxruntime,lightgbm`: distinct inputs, all sides interleaved in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from openinfer.cli.output import ConfigFile, Json, print_json, print_table

REQUESTS = 4096  # calls' worth of distinct requests of a workload, as far as it has them
MAX_BATCH = 1 << 16


def bench(
    model: Annotated[str | None, typer.Argument(help="ONNX file; or use --workload.")] = None,
    workload: Annotated[str | None, typer.Option("--workload", help="Measure the models of a workload.")] = None,
    config: ConfigFile = None,
    against: Annotated[str, typer.Option("--against", help="Comma-separated: onnxruntime, openvino, lightgbm.")] = "",
    batch: Annotated[int, typer.Option("--batch", min=1, max=MAX_BATCH, help="Rows per call.")] = 1,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, max=600, help="Time to measure, per model.")] = 5.0,
    json: Json = False,
) -> None:
    """Measure p50 and p99 of a call, side by side with other engines."""
    from openinfer.errors import InputError
    from openinfer.profiles import bench as measure

    if (model is None) == (workload is None):
        raise InputError("found both or neither of MODEL and --workload; give exactly one")
    peers = [name for name in against.split(",") if name]
    if model is not None:
        results = {model: measure.bench(model, config, peers, batch, seconds)}
    else:
        from openinfer.workloads import registry

        found = registry.get(str(workload))
        count = min(REQUESTS * batch, found.requests)
        results = {
            name: measure.bench(
                str(found.model_path(name)), config, peers, batch, seconds, found.traces("held_out", count, model=name)[0].inputs
            )
            for name in found.models
        }
    if json:
        print_json(results)
        return
    for name, result in results.items():
        calls = min(side.calls for side in result.sides)
        threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}" + (" (the peers 1)" if peers else "")
        print(f"{name}: batch {batch}, {threads}, at least {calls} calls a side, interleaved, inputs drawn at random")
        table = [
            (
                side.name,
                f"{side.p50_ns / 1e3:.3f}",
                f"{side.p99_ns / 1e3:.3f}",
                f"{side.ratio:.2f}×" if side.ratio else "",
                side.against or "",
            )
            for side in result.sides
        ]
        print_table(("call", "p50 µs", "p99 µs", "speed", "against"), table)
        for reason in result.absent.values():
            print(f"absent: {reason}")
