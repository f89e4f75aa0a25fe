"""Where a call's time goes, layer by layer, and how far each layer is from what the machine could do: its roofline (Williams, 2009).

Arithmetic and bytes follow from shapes: each tensor is moved once, a convolution by Winograd counts as the direct one, trees and lookups
have no arithmetic. A layer's ceiling is the larger of arithmetic ÷ peak and bytes ÷ bandwidth, for the memory that holds the whole model.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from openinfer.profiles.ceiling import Ceiling

from openinfer.engine import Engine
from openinfer.kernels.cpu.registry import INDEXED
from openinfer.runtime.layer_timer import Layer, LayerTimer

MOST_CALLS = 1000
LINE = 64
CHEAP = frozenset({"Relu", "Neg", "Abs", "Add", "Sub", "Mul", "Max", "Min", "Clip", "LeakyRelu"})
MOVES = frozenset(
    {"Transpose", "Gather", "GatherElements", "GatherND", "Slice", "Concat", "Split", "Pad", "Expand", "Tile", "Reshape", "Flatten"}
)
TRANSCENDENTAL = 20  # operations of an exponential or the like


@dataclasses.dataclass(frozen=True)
class LayerFigures:
    """One layer: median ns a call, its part of all layers, arithmetic, bytes, operations per byte, the least time by the roofline, and the
    part of the machine's ceiling that it reaches. `access` names how it walks memory where that is not in one line: see `access`.
    """

    label: str
    ns: float
    share: float
    flops: float
    moved_bytes: int
    intensity: float
    floor_ns: float
    reached: float
    bound: str
    access: str


def measure(engine: Engine, inputs: Mapping[str, Any], ceiling: Ceiling, seconds: float) -> list[LayerFigures]:
    """Time the layers for `seconds`, or for a thousand calls. Raises `InputError` where the model is not compiled as a whole."""
    timer = engine.layer_timer(inputs)
    taken: list[Any] = []
    end = time.perf_counter() + seconds
    timer.call()
    while len(taken) < MOST_CALLS and (time.perf_counter() < end or len(taken) < 3):
        timer.call()
        taken.append(timer.durations_ns())
    clock_ns = _stamp_ns()
    return figures(timer, np.maximum(0, np.median(taken, axis=0) - clock_ns), ceiling)


def figures(timer: LayerTimer, nanoseconds: Any, ceiling: Ceiling) -> list[LayerFigures]:
    """The layers' figures for their times."""
    whole, working_set = max(1e-9, float(nanoseconds.sum())), sum(layer.read_bytes + layer.written_bytes for layer in timer.layers)
    found: list[LayerFigures] = []
    for layer, label, ns in zip(timer.layers, labels(timer.layers), nanoseconds, strict=True):
        work, moved = arithmetic(layer), layer.read_bytes + layer.written_bytes
        floor = ceiling.floor_ns(work, moved, working_set)
        bound = "arithmetic" if work / ceiling.flops_per_ns >= moved / ceiling.bandwidth(working_set) else "memory"
        reached = floor / max(float(ns), 1e-9) if ns > 0 else 0.0
        found.append(
            LayerFigures(
                label,
                float(ns),
                float(ns) / whole,
                work,
                moved,
                work / max(1, moved),
                floor,
                reached,
                bound,
                access(layer, timer.inputs),
            )
        )
    return found


def labels(layers: Sequence[Layer]) -> list[str]:
    """The layers' labels on one line each and all different: a node that is several steps has them numbered from the second on."""
    seen: dict[str, int] = {}
    found = []
    for layer in layers:
        plain = " ".join(layer.label.split())
        seen[plain] = seen.get(plain, 0) + 1
        found.append(plain if seen[plain] == 1 else f"{plain} ({seen[plain]})")
    return found


def arithmetic(layer: Layer) -> float:
    """Operations of one call, a multiply-add counted as two."""
    out = sum(math.prod(kind.shape) for kind in layer.writes[:1])
    shapes = [kind.shape for kind in layer.reads] + list(layer.constants)
    name = layer.op.removeprefix("Fused")
    if name.startswith(("Conv", "QLinearConv")):
        filters = next((shape for shape in layer.constants if len(shape) >= 3), None)
        if filters is None:
            return float(out)
        count = math.prod(filters) // max(1, filters[0])
        return 2.0 * (math.prod(layer.reads[0].shape) if name == "ConvTranspose" else out) * count
    if name in ("Gemm", "MatMul"):
        inner = layer.statics.get("k")
        return 2.0 * out * int(inner if inner is not None else shapes[0][-1])
    if name in ("LSTM", "GRU", "RNN"):
        x, weights = layer.reads[0].shape, [shape for shape in layer.constants if len(shape) == 3]
        return 2.0 * x[0] * x[1] * sum(math.prod(shape) for shape in weights)
    if name in MOVES or "TreeEnsemble" in name or layer.kernel in INDEXED:
        return 0.0
    largest = max((math.prod(shape) for shape in shapes), default=out)
    return float(max(largest, out)) * (1 if name in CHEAP or name.startswith("Reduce") or "Pool" in name else TRANSCENDENTAL)


def access(layer: Layer, inputs: Mapping[str, Any]) -> str:
    """How the layer walks memory, where that costs: "stride of N bytes" where neighbouring elements of its result lie a cache line or
    more apart in what it reads, "misaligned" where an input of the caller begins within a line; empty otherwise.
    """
    if layer.op == "Transpose" and layer.reads and layer.writes:
        strides = _transposed_strides(layer.reads[0].shape, layer.writes[0].shape, np.dtype(layer.reads[0].dtype).itemsize)
        if strides >= LINE:
            return f"stride of {strides} bytes"
    if layer.op.startswith("Reduce") and layer.kernel == "reduce" and len(layer.sizes) > 1 and layer.sizes[1] > 1:
        return f"stride of {layer.sizes[1] * np.dtype(layer.reads[0].dtype).itemsize} bytes"
    for name, array in inputs.items():
        if array.nbytes >= LINE and array.ctypes.data % LINE and any(kind.shape == array.shape for kind in layer.reads):
            return f"misaligned: input {name!r} begins {array.ctypes.data % LINE} bytes into a line"
    return ""


def _transposed_strides(source: tuple[int, ...], target: tuple[int, ...], item: int) -> int:
    """Bytes between what become neighbours; 0 where the last axis stays, as far as the shapes tell."""
    if not source or source[-1] == 1 or target[-1] == 1 or (source[-1] == target[-1] and source != target[::-1]):
        return 0
    return source[-1] * item


def _stamp_ns() -> float:
    """What reading the clock costs, once a layer: at most what it costs from Python, less the call that Python adds."""
    clock = time.perf_counter_ns
    return float(np.median([clock() - begin for begin in (clock() for _ in range(2000))])) / 2
