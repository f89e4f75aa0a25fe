"""`openinfer run MODEL --input in.npz [--output out.npz]`."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from openinfer.cli.output import ConfigFile, Json, check_output, print_json, print_table
from openinfer.config import write_atomically
from openinfer.errors import InputError
from openinfer.workloads.trace import read_npz


def run(
    model: Annotated[str, typer.Argument(help="ONNX file.")],
    input: Annotated[str, typer.Option("--input", help="npz with one array per model input.")],
    output: Annotated[str | None, typer.Option("--output", help="npz to write the outputs to.")] = None,
    config: ConfigFile = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with onnx.reference in float64; exit 1 beyond 1e-5 of the largest value.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a model once on the arrays of a file."""
    from openinfer.engine import load

    if output is not None:
        check_output(Path(output))
    arrays = read_npz(input)
    with load(model, config) as engine:
        begin = time.perf_counter()
        results = engine.run(arrays)
        seconds = time.perf_counter() - begin
    check_arrays(results)
    if output is not None:
        buffer = io.BytesIO()
        np.savez(buffer, **{name: _storable(value) for name, value in results.items()})
        write_atomically(Path(output), buffer.getvalue())
    errors = _errors(model, arrays, results) if verify else {}
    summary = {
        "outputs": {name: {"dtype": str(value.dtype), "shape": list(value.shape)} for name, value in results.items()},
        "seconds": seconds,
        "written": output,
        "errors": errors,
    }
    if json:
        print_json(summary)
    else:
        rows = [(name, value.dtype, list(value.shape), *([f"{errors[name]:.1e}"] if verify else [])) for name, value in results.items()]
        print_table(("output", "dtype", "shape", *(["error"] if verify else [])), rows)
    if any(not error <= 1e-5 for error in errors.values()):
        raise typer.Exit(1)


def check_arrays(outputs: Mapping[str, Any]) -> None:
    """`InputError` for an output that is no array: a sequence, a map or an absent optional fits neither the file nor the table."""
    for name, value in outputs.items():
        if not isinstance(value, (np.ndarray, np.generic)):
            found = "nothing" if value is None else _described(value)
            raise InputError(f"output {name!r} is {found}; allowed: arrays; end the model in tensors, or call Engine.run from Python")


def _storable(value: Any) -> Any:
    """Strings as fixed-width unicode: an array of objects would go into the file as a pickle, which no careful reader opens."""
    return np.asarray(value).astype(str) if np.asarray(value).dtype == object else value


def _described(value: Any) -> str:
    """`a list of dict`."""
    kinds = sorted({type(item).__name__ for item in value}) if isinstance(value, (list, tuple)) else []
    return f"a {type(value).__name__}" + (f" of {' and '.join(kinds)}" if kinds else "")


def _errors(model: str, arrays: dict[str, Any], results: dict[str, Any]) -> dict[str, float]:
    """Largest error of each output, relative to the reference's largest value."""
    import onnx

    from openinfer.frontend.float64 import discrepancy, reference, widen

    expected = reference(widen(onnx.load(model)), arrays)
    return {name: discrepancy(np.asarray(value), np.asarray(expected[name])) for name, value in results.items()}
