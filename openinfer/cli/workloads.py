"""`openinfer workloads [NAME] [--export DIR]`: what there is, and its models and traces as files."""

from __future__ import annotations

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
    """Describe the built-in workloads; with --export, write models, tuning and held-out traces (parquet, labels included) and
    what lies behind them in the domain's formats."""
    from openinfer.errors import WorkloadError
    from openinfer.workloads import registry

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
        written = [str(path) for path in workload.export(Path(export), requests)]
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
        [
            row
            for n, m in workload.models.items()
            for row in (
                (n, m.metric, m.accuracy, list(m.accuracy_interval), m.description),
                *(("", measure, value, [low, high], "") for measure, (value, low, high) in m.further.items()),
            )
        ],
    )
