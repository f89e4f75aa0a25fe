"""`openinfer profile MODEL`: where time and memory go, findings first, and one page with all of it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openinfer.cli.output import ConfigFile, Json, check_output, print_json, print_table

if TYPE_CHECKING:
    from openinfer.profiles.profile_record import ProfileRecord

REQUESTS = 20_000  # of a workload's trace, which is repeated


def profile(
    model: Annotated[str | None, typer.Argument(help="ONNX file; or use --workload.")] = None,
    workload: Annotated[str | None, typer.Option("--workload", help="Profile the main model of a workload on its traffic.")] = None,
    config: ConfigFile = None,
    trace: Annotated[str | None, typer.Option("--trace", help="Requests of MODEL (parquet or npz); without, they are random.")] = None,
    report: Annotated[str | None, typer.Option("--report", help="HTML page; default: NAME.profile.html here.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.2, max=3600, help="Time to replay.")] = 5.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of requests and arrivals that are drawn.")] = 0,
    off: Annotated[str, typer.Option("--off", help="Comma-separated: latency, memory, locks, noise, events, stacks, layers.")] = "",
    gil: Annotated[bool, typer.Option("--gil", help="Stacks of the thread that holds the GIL alone.")] = False,
    caches: Annotated[bool, typer.Option("--caches", help="Simulate the caches layer by layer (needs valgrind and gcc).")] = False,
    json: Json = False,
) -> None:
    """Say where time and memory go: findings, latency by stage, layers against the machine's ceiling, contention, stacks.

    Writes a page, and beside it the record (.parquet, its .schema.json) and the stacks for speedscope (.speedscope.json).
    """
    from openinfer.errors import InputError
    from openinfer.profiles import stacks
    from openinfer.profiles.profile import Traffic
    from openinfer.profiles.profile import profile as measure
    from openinfer.reports.profile import write

    if (model is None) == (workload is None):
        raise InputError("found both or neither of MODEL and --workload; give exactly one")
    if trace is not None and model is None:
        raise InputError("found --trace with --workload, which has its own traffic; give MODEL with it")
    name = workload or Path(str(model)).stem
    page = Path(report) if report is not None else Path(f"{name}.profile.html")
    check_output(page)
    traffic = Traffic()
    used: Any = config
    if workload is not None:
        from openinfer.workloads import registry

        found = registry.get(workload)
        model, traffic = str(found.model_path()), Traffic(found.traces("held_out", REQUESTS)[0], found.submits, found.open_store)
        used = config if config is not None else found.base
    elif trace is not None:
        from openinfer.workloads import trace as traces

        traffic = Traffic(traces.read(trace))
    command = shlex.join(["openinfer", *sys.argv[1:]])
    disabled = [item for item in off.split(",") if item]
    record = measure(
        str(model),
        used,
        traffic,
        seconds=seconds,
        seed=seed,
        workload=workload or "",
        command=command,
        off=disabled,
        gil_only=gil,
        simulate_caches=caches,
    )
    record.save(page.with_suffix(".parquet"))
    if record.stacks:
        stacks.write_speedscope(record.stacks, page.with_suffix(".speedscope.json"), name)
    write(record, page)
    if json:
        print_json({"written": str(page), **record.header(), "rows": record.rows})
        return
    _print(record, page)


def _print(record: ProfileRecord, page: Path) -> None:
    """Findings, stages, layers, and where the rest is."""
    from openinfer.reports.profile import layer_rows, stage_rows

    for number, finding in enumerate(record.findings):
        print(f"{'first finding' if number == 0 else 'finding'}: {finding.sentence}: {finding.evidence}")
    if not record.findings:
        print("first finding: none of the rules found anything")
    print()
    print_table(("stage", "p50", "p99", "p99.9", "largest"), stage_rows(record))
    layers = layer_rows(record)
    if layers:
        print()
        print_table(("layer", "time", "share", "operations per byte", "of the ceiling", "bound by"), layers[:8])
    print()
    costs = ", ".join(f"{one.name} {one.share:.2%}" for one in record.instruments if one.on and one.share)
    print(f"the instruments took of the run: {costs or 'nothing that shows'}")
    absent = [f"{one.name}: {one.note}" for one in record.instruments if not one.on]
    print(*(f"off: {line}" for line in absent), sep="\n", end="\n" if absent else "")
    print(f"wrote {page}, {page.with_suffix('.parquet').name}")
