"""`openinfer config show|validate FILE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from openinfer.cli.output import Json, print_json, print_table
from openinfer.config import Config

app = typer.Typer(no_args_is_help=True, help="Show or validate a configuration file.")
File = Annotated[str, typer.Argument(help="TOML file.")]


@app.command()
def show(file: File, json: Json = False) -> None:
    """Print every knob with its value, its default where that differs, and what it does; then evidence and provenance."""
    config, defaults = Config.load(file), Config().knobs()
    if json:
        print_json(config.model_dump(mode="json"))
        return
    rows = [
        (name, _word(value), "" if value == defaults[name] else _word(defaults[name]), _meaning(name))
        for name, value in config.knobs().items()
    ]
    print_table(("knob", "value", "default", "what it is"), rows)
    facts = [row for title in ("evidence", "provenance") for row in _flat(getattr(config, title), title)]
    if facts:
        print()
        print_table(("why and from where", "value"), facts)


@app.command()
def validate(file: File, json: Json = False) -> None:
    """Exit 0 where every knob is known and in range; otherwise name the first that is not."""
    config, defaults = Config.load(file), Config().knobs()
    changed = {name: value for name, value in config.knobs().items() if value != defaults[name]}
    if json:
        print_json({"valid": True, "changed": changed})
        return
    listed = ", ".join(f"{name} = {_word(value)}" for name, value in changed.items())
    print(f"{file}: valid; {f'differs from the default in {listed}' if changed else 'every knob has its default'}")


def _meaning(name: str) -> str:
    """The knob's description; a knob that has one value only has none."""
    section, key = name.split(".", 1)
    table: Any = Config.model_fields[section].annotation
    return table.model_fields[key].description or ""


def _word(value: Any) -> str:
    """The value as TOML writes it, without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}.{key}")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}.{key}", "; ".join(_word(item) for item in value)
        else:
            yield f"{prefix}.{key}", f"{value:.4g}" if isinstance(value, float) else _word(value)
