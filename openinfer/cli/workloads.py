"""`openinfer workloads [NAME] [--export DIR]`: what there is, and its models and traces as files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from openinfer.cli.output import Json, print_json, print_table


def workloads(
    name: Annotated[str | None, typer.Argument(help="A workload; default: list all.")] = None,
    export: Annotated[str | None, typer.Option("--export", help="Folder to write models and traces to.")] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, max=1_000_000, help="Requests per exported trace.")] = 20_000,
    json: Json = False,
) -> None:
    """Describe the built-in workloads; with --export, write models, tuning and held-out traces (parquet, labels included)."""
    from openinfer.errors import WorkloadError
    from openinfer.workloads import registry, trace

    if name is None:
        if export is not None:
            raise WorkloadError(f"--export needs the name of a workload; allowed: {', '.join(registry.names())}")
        found = [registry.get(known) for known in registry.names()]
        if json:
            print_json({item.name: item.description for item in found})
        else:
            print_table(
                ("workload", "models", "promise", "description"), [(w.name, ", ".join(w.models), w.slo, w.description) for w in found]
            )
        return
    workload = registry.get(name)
    if export is not None:
        folder = Path(export)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for model in workload.models:
            written.append(str(shutil.copy(workload.model_path(model), folder)))
        for split in workload.splits:
            for regime in workload.regimes:
                for seed, one in zip(workload.splits[split], workload.traces(split, requests, regime), strict=True):
                    path = folder / f"{split}-{regime}-{seed}.parquet"
                    trace.write(one, path)
                    written.append(str(path))
        print_json({"written": written}) if json else print("\n".join(written))
        return
    if json:
        print_json(
            {
                "name": workload.name,
                "description": workload.description,
                "models": workload.models,
                "slo": workload.slo,
                "regimes": workload.regimes,
                "splits": workload.splits,
            }
        )
        return
    print(f"{workload.name}: {workload.description}\npromise {workload.slo}, regimes {', '.join(workload.regimes)}")
    print_table(
        ("model", "measure", "held-out", "95% interval", "description"),
        [(n, m.metric, m.accuracy, list(m.accuracy_interval), m.description) for n, m in workload.models.items()],
    )
