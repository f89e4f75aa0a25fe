"""`openinfer report STUDY [--output FILE]`: the HTML page of a study, from its record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openinfer.cli.output import Json, check_output, print_json


def report(
    study: Annotated[str, typer.Argument(help="Folder that `openinfer tune` wrote (NAME.study).")],
    output: Annotated[str | None, typer.Option("--output", help="HTML file; default: beside the folder.")] = None,
    json: Json = False,
) -> None:
    """Write the report of a study."""
    from openinfer.profiles.study_record import StudyRecord
    from openinfer.reports.html import write

    folder = Path(study)
    path = Path(output) if output is not None else folder.resolve().with_suffix(".html")
    check_output(path)
    write(StudyRecord.load(folder / "study.json"), path)
    print_json({"written": str(path)}) if json else print(f"wrote {path}")
