"""The knobs that a study may turn, with the values worth trying on this machine for this kind of model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from openinfer.config import Config
from openinfer.machine import Machine


@dataclasses.dataclass(frozen=True)
class Knob:
    """One dimension of the search: the default comes first. `mechanism` says what it changes, for the report; `beside` are the settings
    without which it changes nothing.
    """

    name: str
    values: tuple[Any, ...]
    mechanism: str
    beside: Mapping[str, Any]


def space(
    machine: Machine,
    operators: Sequence[str],
    batches: bool,
    base: Config,
    precision: str | None,
    submits: bool = False,
    looks_up: bool = False,
) -> list[Knob]:
    """Knobs for a model with these operators; `batches` tells whether requests may be joined (a symbolic first dimension),
    `precision` which other arithmetic the model may run in, `submits` whether its requests come through `Engine.submit`, and `looks_up`
    whether some of them begin with a blocking call there. Knobs begin with what `base` has, and those of the sandbox and of the memory pool
    are there where it has a sandbox or a budget: whether there is one is no question of speed.
    """
    defaults = base.knobs()
    trees = any(name.startswith("TreeEnsemble") for name in operators)
    dense = any(name in ("Gemm", "MatMul", "Conv", "ConvTranspose") for name in operators)
    sandboxed, bounded = base.sandbox.mode != "off", base.memory.budget_bytes > 0
    # In the order in which the search tries them alone: what most often pays comes first.
    processors = min(len(machine.processors), 8)
    offered: list[tuple[str, tuple[Any, ...], str, bool]] = [
        ("scheduler.max_batch", (1, 2, 4, 8, 16), "requests that have arrived are joined into one call", batches),
        ("scheduler.mode", ("auto", "async", "inline", "hybrid"), "where calls and look-ups run: on the loop or beside it", looks_up),
        ("scheduler.mode", ("auto", "inline"), "where calls run: on the loop or beside it", submits and not looks_up),
        ("scheduler.offload_us", (100, 0, 30, 1000), "calls expected to take longer leave the event loop", submits),
        ("scheduler.blocking_threads", (0, 1, 4), "look-ups that run at the same time", looks_up),
        ("scheduler.workers", (0, *range(1, processors + 1)), "threads that run what leaves the event loop", submits),
        ("engine.threads", tuple(range(1, processors + 1)), "steps are shared by native threads", True),
        ("sandbox.spin_us", (200, 50, 1000), "how long either side of the sandbox spins for the other before it sleeps", sandboxed),
        ("engine.tree_layout", ("auto", "interleaved", "vector"), "rows one by one, or many rows against one tree after the other", trees),
        ("engine.tree_interleave", (0, 4, 8, 16), "trees that walk one row together", trees),
        ("engine.tile_rows", (0, 1, 2, 4, 8), "rows of the register tile", dense),
        ("engine.tile_vectors", (0, 1, 2, 3), "columns of the register tile and width of the packed panels", dense),
        ("engine.convolution", ("auto", "direct"), "3×3 convolutions by Winograd's method, or as direct sums", "Conv" in operators),
        ("memory.huge_pages", (False, True), "translation of addresses of weights and arenas", True),
        ("engine.gc", ("default", "freeze", "off"), "pauses of Python's garbage collector", True),
        ("scheduler.max_delay_us", (0, 50, 200) if submits else (0, 5, 20), "a request waits for company", batches),
        ("scheduler.preferred_batches", ([], [2, 4, 8], [4]), "sizes of joined calls, formed while requests wait", submits and batches),
        ("engine.spin_us", (50, 0, 1000), "how long a waiting pool thread spins before it sleeps", len(machine.processors) > 1),
        ("engine.wait", ("sleep", "spin"), "idle pool threads spin, or sleep and cost a wake-up", len(machine.processors) > 1),
        ("engine.pin", ("none", "compact"), "pool threads stay on their cores", len(machine.processors) > 1),
        ("memory.alignment", (64, 128, 4096), "where arenas and weights begin", True),
        ("engine.precision", ("model", precision), "arithmetic of float tensors", precision is not None),
        ("memory.size_growth", (1.125, 1.0625, 1.5), "how finely the pool's blocks fit what is asked for", bounded),
        ("memory.idle_s", (10.0, 1.0, 100.0), "how soon the pool gives back what was not needed", bounded),
        ("memory.plan_effort", (1_000_000, 0, 10_000_000), "how tightly buffers are placed in an arena", bounded),
    ]
    pooled, joined = {"engine.threads": processors}, {"scheduler.max_batch": 16}
    beside: dict[str, dict[str, Any]] = {name: pooled for name in ("engine.wait", "engine.spin_us", "engine.pin")}
    beside["scheduler.max_delay_us"] = joined
    if submits:
        beside["scheduler.preferred_batches"] = {**joined, "scheduler.max_delay_us": 200}
        beside["scheduler.blocking_threads"] = {"scheduler.mode": "hybrid"}
    return [
        Knob(name, _default_first(values, defaults[name]), text, beside.get(name, {}))
        for name, values, text, wanted in offered
        if wanted and len(values) > 1
    ]


def _default_first(values: tuple[Any, ...], default: Any) -> tuple[Any, ...]:
    return (default, *(value for value in values if value != default))
