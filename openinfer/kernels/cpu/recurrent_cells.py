"""One time step of one sequence: the arithmetic of an LSTM, GRU or RNN cell over whole vectors of units.

`pre` holds h · R + recurrent bias per gate, `x` the input's projection; gates lie `hidden` elements apart in ONNX's order. Loads may run a
vector past the last unit; stores never do. The new h goes to the state and to `out`, a row of Y.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from openinfer.kernels.cpu.activations import apply
from openinfer.kernels.cpu.loop import counted
from openinfer.kernels.cpu.vectors import VectorType, i64

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}

Load = Callable[[int, int], Any]
Store = Callable[[Any, int, int], None]
Emit = Callable[[Any, Load, Store], None]


def cell_of(
    op: str, v: VectorType, hidden: int, names: tuple[str, ...], clip: float, peephole: bool, coupled: bool, reset_after: bool
) -> Any:
    """cell(pre, x, h, other, peephole, out): `other` is c for an LSTM.

    For a GRU that resets before the product, `other` receives r · h, `pre` receives z, and h stays.
    """

    def lstm(b: Any, load: Load, store: Store) -> None:
        pre, x, h, c, p, out = range(6)
        f, g, last = names
        old = load(c, 0)
        sums = [b.fadd(load(pre, gate), load(x, gate)) for gate in range(4)]
        if peephole:
            sums[0] = v.fma(b, load(p, 0), old, sums[0])
            sums[2] = v.fma(b, load(p, 2), old, sums[2])
        i = apply(b, v, f, _clipped(b, v, sums[0], clip))
        forget = b.fsub(v.constant(1.0), i) if coupled else apply(b, v, f, _clipped(b, v, sums[2], clip))
        candidate = apply(b, v, g, _clipped(b, v, sums[3], clip))
        new = v.fma(b, forget, old, b.fmul(i, candidate))
        if peephole:
            sums[1] = v.fma(b, load(p, 1), new, sums[1])
        o = apply(b, v, f, _clipped(b, v, sums[1], clip))
        result = b.fmul(o, apply(b, v, last, new))
        store(new, c, 0)
        store(result, h, 0)
        store(result, out, 0)

    def gru(b: Any, load: Load, store: Store) -> None:
        pre, x, h, other, _, out = range(6)
        f, g = names
        z, r = (apply(b, v, f, _clipped(b, v, b.fadd(load(pre, gate), load(x, gate)), clip)) for gate in range(2))
        old = load(h, 0)
        if not reset_after:
            store(b.fmul(r, old), other, 0)
            store(z, pre, 0)
            return
        candidate = apply(b, v, g, _clipped(b, v, v.fma(b, r, load(pre, 2), load(x, 2)), clip))
        result = v.fma(b, z, b.fsub(old, candidate), candidate)
        store(result, h, 0)
        store(result, out, 0)

    def rnn(b: Any, load: Load, store: Store) -> None:
        pre, x, h, _, _, out = range(6)
        result = apply(b, v, names[0], _clipped(b, v, b.fadd(load(pre, 0), load(x, 0)), clip))
        store(result, h, 0)
        store(result, out, 0)

    return _over_units(v, hidden, {"LSTM": lstm, "GRU": gru, "RNN": rnn}[op])


def candidate_of_gru(v: VectorType, hidden: int, names: tuple[str, ...], clip: float) -> Any:
    """candidate(pre, x, h, product, unused, out): h from z in `pre` and from (r · h) · R in `product`."""

    def emit(b: Any, load: Load, store: Store) -> None:
        pre, x, h, product, _, out = range(6)
        candidate = apply(b, v, names[1], _clipped(b, v, b.fadd(load(product, 0), load(x, 2)), clip))
        result = v.fma(b, load(pre, 0), b.fsub(load(h, 0), candidate), candidate)
        store(result, h, 0)
        store(result, out, 0)

    return _over_units(v, hidden, emit)


def _clipped(b: Any, v: VectorType, x: Any, clip: float) -> Any:
    return v.at_least(b, v.at_most(b, x, v.constant(clip)), v.constant(-clip)) if clip else x


def _over_units(v: VectorType, hidden: int, emit_units: Emit) -> Any:
    """The intrinsic that runs `emit_units` for every vector of units; the last one stores only the units that exist."""

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        bases = [b.inttoptr(argument, ir.PointerType()) for argument in args]

        def vector_at(at: Any, count: int) -> None:
            def load(operand: int, gate: int) -> Any:
                return v.load(b, bases[operand], b.add(at, i64(gate * hidden)))

            def store(value: Any, operand: int, gate: int) -> None:
                place = b.add(at, i64(gate * hidden))
                if count == v.lanes:
                    v.store(b, value, bases[operand], place)
                else:
                    v.store_first(b, value, bases[operand], place, i64(count))

            emit_units(b, load, store)

        def whole(index: Any, carried: list[Any]) -> list[Any]:
            vector_at(b.mul(index, i64(v.lanes)), v.lanes)
            return carried

        counted(b, i64(0), i64(hidden // v.lanes), [], whole)
        if hidden % v.lanes:
            vector_at(i64(hidden // v.lanes * v.lanes), hidden % v.lanes)
        return context.get_dummy_value()

    @intrinsic
    def over_units(typing_context: Any, pre: Any, x: Any, h: Any, other: Any, peephole: Any, out: Any) -> Any:
        return types.void(*[types.intp] * 6), emit

    return over_units
