"""The `openinfer` command: one file per sub-command, registered here. Errors become one line on stderr and exit code 2, Ctrl-C one line
and 130.
"""

from __future__ import annotations

import logging
import shlex
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from openinfer.cli import bench, check, configuration, doctor, profile, report, run, tune, workloads
from openinfer.errors import OpenInferError
from openinfer.version import __version__


class Commands(TyperGroup):
    """The commands. Click would make "Aborted." and exit code 1 of Ctrl-C and of any file that ends early."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print(f"openinfer: interrupted{_way_on(ctx.invoked_subcommand)}", file=sys.stderr)
            raise typer.Exit(130) from None
        except EOFError as error:
            print(f"openinfer: found the end of a file or a channel too early: {error}; check the files given", file=sys.stderr)
            raise typer.Exit(2) from None


def _way_on(command: str | None) -> str:
    if command != "tune":
        return ""
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return f"; {shlex.join(['openinfer', *arguments, '--resume'])} goes on"


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find and run the fastest correct configuration of a model.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"openinfer {__version__}")
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Options of every command."""


app.command("tune")(tune.tune)
app.command("report")(report.report)
app.command("run")(run.run)
app.command("bench")(bench.bench)
app.command("profile")(profile.profile)
app.command("check")(check.check)
app.command("doctor")(doctor.doctor)
app.command("workloads")(workloads.workloads)
app.add_typer(configuration.app, name="config")


def main() -> None:
    """Entry point of the console script."""
    logging.basicConfig(format="openinfer: %(message)s", level=logging.WARNING)
    try:
        app()
    except OpenInferError as error:
        print(f"openinfer: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        print(f"openinfer: cannot use{where}: {error.strerror or error}; check the path and its permissions", file=sys.stderr)
        sys.exit(2)
