"""Times a model's calls beside other engines: one process, one thread, rounds that visit every side in shuffled order, a new input each
round.

Each OpenInfer call is compared with the peers' call of the same kind: addresses bound beforehand and the input refilled outside the clock
(`bound`), the refill inside it (`refill`), or the convenient call that takes and returns arrays (`run`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.engine import Engine, load
from openinfer.errors import InputError, MissingExtraError, suggest
from openinfer.ir.graph import Array
from openinfer.runtime.signature import example

ROWS = 1024
TURN = 16  # calls in a row, each timed alone: enough for the caches to hold the side's own data, as they do in service


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to call one engine. `ratio` is how many times the fastest peer's call of this kind takes longer (p50 ÷ p50)."""

    name: str
    kind: str
    p50_ns: float
    p99_ns: float
    against: str | None = None
    ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class BenchResult:
    """All sides of one model. The clock's own cost is part of every figure."""

    model: str
    batch: int
    rounds: int
    clock_ns: float
    sides: list[Side]


@dataclasses.dataclass(frozen=True)
class Contender:
    """`prepare(inputs)` runs outside the clock, `call()` inside."""

    name: str
    kind: str
    prepare: Callable[[Mapping[str, Array]], object]
    call: Callable[[], object]


def bench(
    model: str, config: Any, against: Sequence[str], batch: int, seconds: float, rows: Mapping[str, Array] | None = None
) -> BenchResult:
    """Interleaved timings of `model` and its peers for `seconds`. Raises `InputError` for an unknown peer.

    `rows` are the requests to draw from, first axis the request; without them the inputs are random.
    """
    unknown = [name for name in against if name not in PEERS]
    if unknown:
        raise InputError(f"unknown engine {unknown[0]!r}; {suggest(unknown[0], PEERS)}")
    rng = np.random.default_rng(0)
    with load(model, config) as engine:
        inputs = [example(engine.inputs, rng, batch) for _ in range(ROWS)] if rows is None else _batches(rows, batch)
        contenders = _openinfer(engine, inputs[0])
        for name in against:
            contenders += PEERS[name](model, inputs[0])
        samples = _interleave(contenders, inputs, rng, seconds)
    sides = [_side(c, samples[c.name]) for c in contenders]
    return BenchResult(model, batch, len(samples[contenders[0].name]), _clock_ns(), [_compared(side, sides) for side in sides])


def _batches(rows: Mapping[str, Array], batch: int) -> list[dict[str, Array]]:
    """Batches of requests in random order: successive requests of a trace resemble each other, which flatters code that branches on
    them.
    """
    order = np.random.default_rng(1).permutation(len(next(iter(rows.values()))))
    groups = [order[i : i + batch] for i in range(0, len(order) - batch + 1, batch)]
    return [{name: np.ascontiguousarray(array[group]) for name, array in rows.items()} for group in groups]


def _side(contender: Contender, samples: Sequence[int]) -> Side:
    p50, p99 = np.percentile(samples, [50, 99])
    return Side(contender.name, contender.kind, float(p50), float(p99))


def _interleave(contenders: Sequence[Contender], inputs: Sequence[Mapping[str, Array]], rng: Any, seconds: float) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = {contender.name: [] for contender in contenders}
    clock, end = time.perf_counter_ns, time.perf_counter() + seconds
    index = 0
    while time.perf_counter() < end or index < 64:
        for position in rng.permutation(len(contenders)):
            contender = contenders[position]
            prepare, call, taken = contender.prepare, contender.call, samples[contender.name]
            for turn in range(index, index + TURN):
                prepare(inputs[turn % len(inputs)])
                begin = clock()
                call()
                taken.append(clock() - begin)
        index += TURN
    return samples


def _openinfer(engine: Engine, first: Mapping[str, Array]) -> list[Contender]:
    held: dict[str, Any] = {}

    def hold(inputs: Mapping[str, Array]) -> None:
        held["inputs"] = inputs

    contenders = [Contender("openinfer run", "run", hold, lambda: engine.run(held["inputs"]))]
    if not engine.statistics().fallback:
        mine = {name: array.copy() for name, array in first.items()}
        call = engine.bind(mine)
        contenders = [
            Contender("openinfer bound", "bound", lambda inputs: _fill(mine, inputs), call),
            Contender("openinfer refill", "refill", hold, _refill(mine, held, call)),
            *contenders,
        ]
    return contenders


def _onnxruntime(model: str, first: Mapping[str, Array]) -> list[Contender]:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime is not installed; pip install 'openinfer[bench]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    mine = {name: array.copy() for name, array in first.items()}
    results = dict(zip((output.name for output in session.get_outputs()), session.run(None, dict(first)), strict=True))
    binding = session.io_binding()
    for name, array in mine.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for name, array in results.items():
        binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    held: dict[str, Any] = {}

    def hold(inputs: Mapping[str, Array]) -> None:
        held["inputs"] = inputs

    def bound() -> None:
        session.run_with_iobinding(binding)

    return [
        Contender("onnxruntime iobinding", "bound", lambda inputs: _fill(mine, inputs), bound),
        Contender("onnxruntime iobinding refill", "refill", hold, _refill(mine, held, bound)),
        Contender("onnxruntime run", "run", hold, lambda: session.run(None, held["inputs"])),
    ]


def _lightgbm(model: str, first: Mapping[str, Array]) -> list[Contender]:
    """LightGBM's C single-row-fast call on the same trees; nothing to compare for other models and for batches."""
    import onnx
    from openinfer.workloads.lightgbm_text import lightgbm_text

    (name, row), *others = first.items()
    proto = onnx.load(model)
    if others or len(row) != 1 or [node.op_type for node in proto.graph.node] != ["TreeEnsembleRegressor"]:
        return []
    try:
        import lightgbm
    except ImportError:
        raise MissingExtraError("lightgbm is not installed; pip install 'openinfer[bench]'") from None
    return [_single_row_fast(lightgbm, lightgbm_text(proto, row.shape[1]), name, row)]


def _single_row_fast(lightgbm: Any, text: str, name: str, row: Array) -> Contender:
    import ctypes

    library = lightgbm.basic._LIB
    booster = lightgbm.Booster(model_str=text)
    mine, out, length, fast = row[0].copy(), np.empty(1), ctypes.c_int64(), ctypes.c_void_p()
    # Data of C_API_DTYPE_FLOAT32 (0), a normal prediction (0), all iterations.
    status = library.LGBM_BoosterPredictForMatSingleRowFastInit(
        booster._handle,
        ctypes.c_int(0),
        ctypes.c_int(0),
        ctypes.c_int(-1),
        ctypes.c_int(0),
        ctypes.c_int32(mine.size),
        ctypes.c_char_p(b"num_threads=1"),
        ctypes.byref(fast),
    )
    if status:
        raise InputError(f"LightGBM refuses the model: {library.LGBM_GetLastError()}")
    arguments = fast, ctypes.c_void_p(mine.ctypes.data), ctypes.byref(length), ctypes.c_void_p(out.ctypes.data)
    predict = library.LGBM_BoosterPredictForMatSingleRowFast

    def call() -> object:
        return predict(*arguments)

    def prepare(inputs: Mapping[str, Array]) -> object:
        mine[:] = inputs[name][0]
        return booster

    return Contender("lightgbm single-row-fast", "bound", prepare, call)


PEERS: dict[str, Callable[[str, Mapping[str, Array]], list[Contender]]] = {"onnxruntime": _onnxruntime, "lightgbm": _lightgbm}


def _fill(mine: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
    for name, array in mine.items():
        array[...] = inputs[name]


def _refill(mine: Mapping[str, Array], held: Mapping[str, Any], call: Callable[[], object]) -> Callable[[], None]:
    if len(mine) == 1:
        ((name, array),) = mine.items()

        def one() -> None:
            array[...] = held["inputs"][name]
            call()

        return one

    def several() -> None:
        _fill(mine, held["inputs"])
        call()

    return several


def _compared(side: Side, sides: Sequence[Side]) -> Side:
    peers = [other for other in sides if other.kind == side.kind and not other.name.startswith("openinfer")]
    if not peers or not side.name.startswith("openinfer"):
        return side
    best = min(peers, key=lambda other: other.p50_ns)
    return dataclasses.replace(side, against=best.name, ratio=best.p50_ns / side.p50_ns)


def _clock_ns() -> float:
    clock = time.perf_counter_ns
    return float(np.median([clock() - begin for begin in (clock() for _ in range(10_000))]))
