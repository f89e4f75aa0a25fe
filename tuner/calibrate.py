"""Finds which layers of a float64 model can run in float32: every layer is measured on a trace, and the worst stay in float64.

1. one engine computes each layer twice from the same exact float64 inputs, in float64 and in float32: the error that float32 adds there
2. the model in float32 beside the model in float64: the error that reaches the outputs
3. while that is above the tolerance, the layers with the largest error of 1 go back to float64
4. of those, each that the tolerance can do without runs in float32 after all
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.workloads.requests import batched, bindable
from openinfer.workloads.trace import Trace

from openinfer.config import Config
from openinfer.engine import compile_graph
from openinfer.errors import ConfigError, InputError
from openinfer.frontend.dtypes import value_types
from openinfer.frontend.float64 import discrepancy
from openinfer.frontend.onnx_model import read
from openinfer.ir.graph import Array, Graph, Node, Signature, free_name
from openinfer.passes.eliminate_dead import eliminate_dead
from openinfer.passes.fold_constants import fold_constants
from openinfer.passes.set_precision import fixes_arithmetic
from openinfer.runtime.conversion import Conversions
from openinfer.runtime.fallback import Fallback
from openinfer.runtime.provenance import model_hash
from openinfer.runtime.signature import check

log = logging.getLogger("openinfer")

REQUESTS = 256  # spread evenly over the trace
TOGETHER = 32  # requests of one call, at most
HELD_BYTES = 256 << 20  # of intermediate values of one call, unless one request has more
TOLERANCE = 1e-5
SECONDS = 60.0  # for choosing layers; measuring them takes its own time

Request = Mapping[str, Array]


def calibrate(
    model: str | os.PathLike[str] | bytes | Any,
    inputs: Mapping[str, Array] | Trace,
    tolerance: float = TOLERANCE,
    config: Config | None = None,
    seconds: float = SECONDS,
) -> Config:
    """`config` with `engine.precision = "float32"`, and in `engine.float64_layers` the layers that must stay in float64, so that every
    output is within `tolerance` of its largest value. Where no choice of layers is, the precision stays `model`.

    `inputs` maps every input to requests along the first axis; at most 256 of them, evenly spread, are used. `evidence["calibration"]` says
    what was measured, and `table` prints it; `openinfer.load` runs the model in float32 with it, and no other float64 model. After
    `seconds` no further choice of layers is tried: the best one so far is taken. Raises `ConfigError` for a model without float64, or a
    tolerance or time that is not positive, and what reading a model and its inputs raises.
    """
    base = Config() if config is None else config
    if not isinstance(inputs, (Mapping, Trace)):
        raise InputError(f"found {type(inputs).__name__} as inputs; allowed: a mapping of inputs to arrays of requests, or a trace")
    if not tolerance > 0:
        raise ConfigError(f"found {tolerance=}; allowed: above 0, such as {TOLERANCE}")
    if not seconds > 0:
        raise ConfigError(f"found {seconds=}; allowed: above 0, such as {SECONDS:g}")
    until = time.monotonic() + seconds
    whole = read(model)
    if "float64" not in value_types(whole).values():
        raise ConfigError("found a model that computes nothing in float64; allowed: a float64 model; run this one as it is")
    graph = fold_constants(eliminate_dead(whole), Fallback().evaluate)  # as the pass sees it, so that layers have the same names
    requests = _pick(graph, inputs if isinstance(inputs, Mapping) else inputs.inputs)
    fixed = [node.key for node in graph.nodes if fixes_arithmetic(node)]
    errors, together = layer_errors(graph, requests, base, fixed)
    unseen = [key for key, error in errors.items() if math.isnan(error)]
    errors = {key: error for key, error in errors.items() if key not in unseen}
    stays = {key: "fixes its own arithmetic" for key in fixed} | {key: "no finite value was seen" for key in unseen}
    order = sorted(errors, key=lambda key: -errors[key])
    reached: dict[frozenset[str], float] = {}
    with compile_graph(graph, _with(base, "model", ())) as exact:
        answered = [(request, exact.run(request)) for request in requests.calls(together)]

    def inside(kept: Sequence[str]) -> bool | None:
        """Whether the outputs are within the tolerance where these layers stay in float64; `None` where there is no time to find out."""
        key = frozenset(kept)
        if key not in reached:
            if reached and time.monotonic() >= until:
                return None
            reached[key] = _end_to_end(graph, answered, _with(base, "float32", [*stays, *kept]))
            log.info("calibration: %d of %d layers in float64: error %.1e at the outputs", len(kept), len(order), reached[key])
        return reached[key] <= tolerance

    fewest = _fewest(len(order), lambda number: inside(order[:number])) if order else None
    narrow = fewest is not None
    kept = _without_needless(order[:fewest], inside) if fewest is not None else []
    layers = [*stays, *kept] if narrow else []
    found: dict[str, Any] = {
        "model_sha256": model_hash(model),
        "precision": "float32" if narrow else "model",
        "float64_layers": layers,
        "layers": len(graph.nodes),
        "requests": requests.count,
        "tolerance": tolerance,
        "error": reached[frozenset(kept)] if narrow else 0.0,
        "float32_error": reached.get(frozenset(), 0.0),
        "kept": {key: errors[key] for key in kept} | stays if narrow else {},
    }
    log.info("calibration: %s", summary(found))
    engine = base.engine.model_copy(update={"precision": found["precision"], "float64_layers": tuple(layers)})
    return base.model_copy(update={"engine": engine, "evidence": {**base.evidence, "calibration": found}})


def layer_errors(graph: Graph, requests: Requests, config: Config, fixed: Collection[str]) -> tuple[dict[str, float], int]:
    """Layer → the error that float32 adds there, of its largest output value: its inputs are exact, and rounded to float32 as they enter;
    NaN for a layer whose outputs held no finite value.
    And how many requests a call may join, for the memory that their intermediate values take.

    Layers that read and write no float64, or sequences, have none, and are left out with the `fixed` ones.
    """
    types, taken = value_types(graph), graph.names()
    nodes: list[Node] = []
    twins: dict[str, list[tuple[str, str]]] = {}
    for node in graph.nodes:
        nodes.append(node)
        kinds = [types.get(name, "") for name in (*node.inputs, *node.outputs)]
        if node.key not in fixed and "float64" in kinds and not any("(" in kind for kind in kinds):
            names = {name: free_name(f"{name}.float32", taken) for name in node.outputs if name}
            nodes.append(dataclasses.replace(node, outputs=tuple(names.get(name, "") for name in node.outputs), name=""))
            twins[node.key] = list(names.items())
    if not twins:
        return {}, 1
    shown = [(name, types[exact]) for pairs in twins.values() for exact, twin in pairs for name in (exact, twin)]
    outputs = tuple(Signature(name, kind, None) for name, kind in shown)
    both = dataclasses.replace(graph, outputs=outputs, nodes=tuple(nodes))
    worst = {key: [_Worst() for _ in pairs] for key, pairs in twins.items()}
    with compile_graph(both, _with(config, "float32", [node.key for node in graph.nodes])) as engine:
        one_request = engine.run(next(requests.calls(1)))
        together = max(1, min(TOGETHER, HELD_BYTES // max(1, sum(value.nbytes for value in one_request.values()))))
        for request in requests.calls(together):
            values = engine.run(request)
            for key, pairs in twins.items():
                for one, (exact, rounded) in zip(worst[key], pairs, strict=True):
                    one.see(values[rounded], values[exact])
    return {key: max(one.error for one in found) for key, found in worst.items()}, together


def summary(calibration: Mapping[str, Any]) -> str:
    """One sentence on what was found."""
    measured = f"tolerance {calibration['tolerance']:.0e}, {calibration['requests']} requests"
    if calibration["precision"] != "float32":
        return f"the model stays in float64: in float32 its outputs err by {calibration['float32_error']:.1e} ({measured})"
    kept = calibration["float64_layers"]
    where = f"{len(kept)} of {calibration['layers']} layers stay in float64" if kept else "every layer runs in float32"
    return f"{where}: the outputs err by {calibration['error']:.1e}, all in float32 by {calibration['float32_error']:.1e} ({measured})"


def table(config: Config) -> str:
    """What a calibration found, for reading: the sentence, and a line for each layer that stays in float64."""
    calibration = config.evidence.get("calibration")
    if calibration is None:
        raise ConfigError("found a configuration without a calibration; make one with openinfer.calibrate")
    rows = [(key, why if isinstance(why, str) else f"{why:.1e}") for key, why in calibration["kept"].items()]
    width = max((len(key) for key, _ in rows), default=0)
    head = [f"{'layer':<{max(width, 5)}}  error in float32"] if rows else []
    return "\n".join([summary(calibration), *head, *(f"{key:<{max(width, 5)}}  {why}" for key, why in rows)])


class _Worst:
    """The largest difference and the largest value over calls. NaN beside NaN is no difference, and says nothing: `compared` counts the
    values that do.
    """

    def __init__(self) -> None:
        self._difference = self._largest = 0.0
        self.compared = 0

    def see(self, found: Array, expected: Array) -> None:
        self.compared += int(np.isfinite(expected).sum()) if expected.dtype.kind == "f" else expected.size
        self._difference = max(self._difference, discrepancy(found, expected, 1.0))
        if expected.dtype.kind == "f":
            self._largest = max(self._largest, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))

    @property
    def error(self) -> float:
        """Of the largest value; NaN where nothing could be compared."""
        return self._difference / (self._largest or 1.0) if self.compared else float("nan")


def _with(config: Config, precision: str, layers: Collection[str]) -> Config:
    """For an engine that only measures: what the caller's process does with its garbage stays as it is."""
    engine = config.engine.model_copy(update={"precision": precision, "float64_layers": tuple(layers), "gc": "default"})
    return config.model_copy(update={"engine": engine})


def _end_to_end(graph: Graph, answered: Sequence[tuple[Request, Request]], config: Config) -> float:
    """The largest error of an output, of its largest value, against the answers of the model in float64."""
    worst = {signature.name: _Worst() for signature in graph.outputs}
    with compile_graph(graph, config) as narrow:
        for request, exact in answered:
            found = narrow.run(request)
            for name, one in worst.items():
                one.see(np.asarray(found[name]), np.asarray(exact[name]))
    for name, one in worst.items():
        if not one.compared:
            raise InputError(
                f"found no finite value of output {name!r} in {len(answered)} calls; allowed: requests as the model sees them; drop NaN"
            )
    return max(one.error for one in worst.values())


def _fewest(most: int, inside: Callable[[int], bool | None]) -> int | None:
    """The least number for which `inside` holds, by doubling, then halving, with `inside` taken to go on holding; `None` below `most`.

    The number that is given back was itself tried. Where `inside` is `None`, the search ends with the best so far.
    """
    if inside(0):
        return 0
    low, high = 0, 1
    while high < most and not (found := inside(high)):
        if found is None:
            return None
        low, high = high, min(2 * high, most)
    if high >= most:
        high = most - 1  # with every layer in float64 there is nothing in float32
        if high <= low or not inside(high):
            return None
    while high - low > 1:
        middle = (low + high) // 2
        found = inside(middle)
        if found is None:
            return high
        low, high = (low, middle) if found else (middle, high)
    return high


def _without_needless(kept: Sequence[str], inside: Callable[[Sequence[str]], bool | None]) -> list[str]:
    """`kept`, worst first, without those layers that `inside` does without, the least bad one tried first."""
    needed = list(kept)
    for key in reversed(kept[:-1]):  # the last one was found to be needed
        rest = [other for other in needed if other != key]
        if inside(rest):
            needed = rest
    return needed


@dataclasses.dataclass(frozen=True)
class Requests:
    """Requests of a trace, along the first axis of every array, for a model with these inputs."""

    signatures: tuple[Signature, ...]
    arrays: Mapping[str, Array]
    count: int

    def calls(self, together: int) -> Iterator[Request]:
        """Arguments of calls of at most `together` requests each; of one each where the model fixes its shapes."""
        size = together if batched(self.signatures) else 1
        conversions = Conversions(Config().engine.conversion_tolerance)
        for start in range(0, self.count, size):
            rows = {name: array[start : start + size] for name, array in self.arrays.items()}
            yield check(bindable(self.signatures, rows, size), self.signatures, conversions)


def _pick(graph: Graph, inputs: Mapping[str, Any]) -> Requests:
    """At most `REQUESTS` of them, spread evenly over the trace."""
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    lengths = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(lengths) != 1 or not min(lengths):
        raise InputError(f"found inputs with {sorted(lengths)} requests; allowed: one number above 0, along the first axis of every input")
    total = min(lengths)
    chosen = np.unique(np.linspace(0, total - 1, min(REQUESTS, total)).astype(np.int64))
    return Requests(graph.inputs, {name: array[chosen] for name, array in arrays.items()}, len(chosen))
