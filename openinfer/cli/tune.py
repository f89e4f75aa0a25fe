"""`openinfer tune`: search, prove, write the configuration."""

from __future__ import annotations

import math
import shlex
import sys
from typing import Annotated, Any

import typer

from openinfer.cli.output import Json, print_json, print_table


def tune(
    workload: Annotated[str | None, typer.Option("--workload", help="A built-in workload; see `openinfer workloads`.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="ONNX file of your own.")] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", help="npz or parquet with arrival_s and one column per input; default: random.")
    ] = None,
    slo: Annotated[str | None, typer.Option("--slo", help='Promises, such as "p99<2ms,p99.9<5ms".')] = None,
    budget: Annotated[str, typer.Option("--budget", help="60s, 5m or 40trials.")] = "90s",
    objective: Annotated[
        str | None, typer.Option("--objective", help="Percentile of the latency to improve; default: the workload's, or p99.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the search and the races.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study at the same --output.")] = False,
    output: Annotated[str | None, typer.Option("--output", help="Configuration to write; default: tuned/NAME.toml.")] = None,
    json: Json = False,
) -> None:
    """Search for a faster configuration, race it on held-out traffic, write the winner or the default with the evidence."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from openinfer.reports.html import write
    from openinfer.tuner.study import tune as study

    columns = TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("preparing", total=None)

        def progress(phase: str, left: float, best: float | None) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            text = phase if best is None else f"{phase}, best so far {100 * (best - 1):+.0f}%"
            total = elapsed + left if math.isfinite(left) else None  # a budget of trials does not say how long they take
            bar.update(shown, description=text, completed=elapsed, total=total)

        done = study(
            workload,
            model=model,
            trace=trace,
            slo=slo,
            budget=budget,
            objective=objective,
            seed=seed,
            output=output,
            resume=resume,
            progress=progress,
            command=shlex.join(["openinfer", *sys.argv[1:]]),
        )
    record = done.record
    page = done.config_path.with_suffix(".html")
    write(record, page)
    if json:
        print_json(
            {
                "verdict": record.verdict,
                "slos": record.slos,
                "arms": record.arms,
                "trust": record.trust,
                "sandbox": record.sandbox,
                "config": str(done.config_path),
                "study": str(done.folder),
                "report": str(page),
            }
        )
        return
    print(record.verdict.sentence)
    rows: list[tuple[Any, ...]] = [
        (
            arm.name,
            *(f"{level.estimate / 1e3:.2f}" if level else "-" for level in (arm.p50_ns, arm.p99_ns, arm.p999_ns)),
            f"{arm.peak_bytes >> 20}",
            f"{arm.startup_s:.2f}",
        )
        for arm in record.arms
    ]
    print_table(("arm", "p50 µs", "p99 µs", "p99.9 µs", "MiB", "start s"), rows)
    for check in record.slos:
        bound = f"at most {check.upper_ns / 1e3:.1f} µs" if check.upper_ns is not None else "too few samples for a bound"
        print(
            f"{check.expression} by the {check.arm}: {check.status} ({check.violations} of {check.samples} above the limit; {bound} at 99%)"
        )
    if record.sandbox is not None:
        price = record.sandbox
        text = ", ".join(
            f"{name} {(ratio.estimate - 1):+.1%} ({ratio.low - 1:+.1%} to {ratio.high - 1:+.1%})"
            for name, ratio in (("p50", price.p50), (record.verdict.objective, price.objective))
        )
        print(f"the sandbox ({price.mode}) of the {price.arm} costs: {text}, beside the same configuration without")
    print(f"wrote {done.config_path}, {page} and {done.folder}")
