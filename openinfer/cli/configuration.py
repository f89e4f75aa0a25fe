"""`openinfer config show|validate FILE`."""

from __future__ import annotations

from typing import Annotated

import typer

from openinfer.cli.output import Json, print_json, print_table
from openinfer.config import Config

app = typer.Typer(no_args_is_help=True, help="Show or validate a configuration file.")
File = Annotated[str, typer.Argument(help="TOML file.")]


@app.command()
def show(file: File, json: Json = False) -> None:
    """Print every knob with its value and the default, then evidence and provenance."""
    config, defaults = Config.load(file), Config().knobs()
    if json:
        print_json(config.model_dump(mode="json"))
        return
    print_table(
        ("knob", "value", "default"),
        [(name, value, "" if value == defaults[name] else defaults[name]) for name, value in config.knobs().items()],
    )
    for title, table in (("evidence", config.evidence), ("provenance", config.provenance)):
        for key, value in table.items():
            print(f"{title}.{key} = {value}")


@app.command()
def validate(file: File, json: Json = False) -> None:
    """Exit 0 where every knob is known and in range; otherwise name the first that is not."""
    config = Config.load(file)
    changed = {name: value for name, value in config.knobs().items() if value != Config().knobs()[name]}
    if json:
        print_json({"valid": True, "changed": changed})
    else:
        print(f"{file}: valid, {len(changed)} knobs differ from the default")
