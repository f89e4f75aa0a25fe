"""What every command prints: a table for people, or JSON with `--json`."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from openinfer.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ConfigFile = Annotated[str | None, typer.Option("--config", help="Configuration (TOML); default: $OPENINFER_CONFIG, or the defaults.")]


def check_output(path: Path) -> None:
    """`InputError` for what could not be written when the work is done."""
    if path.is_dir():
        raise InputError(f"output {str(path)!r} is a folder; give the path of a file in it")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"output {str(path)!r} cannot be written: {str(path.parent)!r} is no writable folder; make it or choose another")


def print_json(value: Any) -> None:
    """One JSON document; dataclasses become objects."""
    print(
        json.dumps(
            value,
            indent=1,
            default=lambda item: dataclasses.asdict(item) if dataclasses.is_dataclass(item) and not isinstance(item, type) else str(item),
        )
    )


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Left-aligned columns, as wide as their content."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
