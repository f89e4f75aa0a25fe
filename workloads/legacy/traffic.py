"""The requests of `legacy`: one order each. `calls` gives the same orders as old callers send them, in forms that the engine converts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.workloads.legacy.callers import FORMS, Callers
from openinfer.workloads.legacy.orders import CLASSES, COLUMNS, DESK, EPOCH_S
from openinfer.workloads.trace import Trace

from openinfer.errors import WorkloadError, suggest

PIPELINE, NETWORK = "pipeline", "network"

# By regime: who calls. In `mixed` half of the calls come in another form than the model's.
REGIMES = {
    "migrated": Callers({"native": 400.0}, 2.0),
    "mixed": Callers(
        {"native": 300.0, "big-endian": 60.0, "strided": 60.0, "Fortran order": 40.0, "float64": 60.0, "float16": 30.0, "integers": 50.0},
        2.0,
    ),
}
# A time stamp does not fit float16.
HELD_BY = {PIPELINE: frozenset(FORMS) - {"float16"}, NETWORK: frozenset(FORMS)}


def generate(name: str, requests: int, seed: int) -> Trace:
    """A trace of `requests` orders for the pipeline, float64 [6], of one regime (`migrated`, `mixed`); labels are their classes."""
    return _trace(PIPELINE, name, requests, seed)


def generate_network(name: str, requests: int, seed: int) -> Trace:
    """The same orders for the network: float32, time stamps in seconds since `EPOCH_S`."""
    return _trace(NETWORK, name, requests, seed)


OTHERS = {NETWORK: generate_network}


def prepared(model: str, x: Any) -> Any:
    """Features [n, 6] in float64 as a model's up-to-date callers send them."""
    return x if model == PIPELINE else (x - np.array([EPOCH_S, EPOCH_S, 0, 0, 0, 0])).astype(np.float32)


def calls(model: str, name: str, count: int, seed: int) -> Iterator[tuple[str, Any, Any]]:
    """`count` calls as they come: form, rows in that form, the same rows as the model takes them. Forms that cannot hold a model's numbers
    are not sent to it: those callers send the native one.
    """
    callers = _callers(name)
    _, forms, rows = callers.simulate(count, seed)
    x, _ = DESK.draw(int(rows.sum()), np.random.default_rng((seed, 4)))
    names = list(callers.rates)
    for form, chunk in zip(forms.tolist(), np.split(prepared(model, x), np.cumsum(rows)[:-1]), strict=True):
        chosen = names[form] if names[form] in HELD_BY[model] else "native"
        native = np.ascontiguousarray(chunk)
        yield chosen, FORMS[chosen](native), native


def export_raw(folder: Path, name: str, regime: str, requests: int, seed: int) -> list[Path]:
    """The orders behind a trace as a desk keeps them: one line each, with its class."""
    x, labels = DESK.draw(requests, np.random.default_rng((seed, 4)))
    path = folder / f"{name}_orders.csv"
    rows = "".join(",".join(repr(float(v)) for v in row) + f",{CLASSES[label]}\n" for row, label in zip(x, labels, strict=True))
    path.write_text(",".join((*COLUMNS, "class")) + "\n" + rows, encoding="utf-8")
    return [path]


def _callers(name: str) -> Callers:
    if name not in REGIMES:
        raise WorkloadError(f"unknown regime {name!r}; {suggest(name, REGIMES)}")
    return REGIMES[name]


def _trace(model: str, name: str, requests: int, seed: int) -> Trace:
    x, labels = DESK.draw(requests, np.random.default_rng((seed, 4)))
    times, _, _ = _callers(name).simulate(requests, seed)
    return Trace({"x": prepared(model, x)}, times - times[0], labels)
