"""LSTM, GRU and RNN, one time step after the other. Sequences of several lengths run together; what lies behind an end is masked."""

from __future__ import annotations

from typing import Any

from openinfer.ops._base import NotCompiled
from openinfer.ops.meaning._base import Call, Meaning, Meanings, values
from openinfer.ops.meaning.elementwise import DEFAULTS, UNARY
from openinfer.ops.meaning.formula import Formula, evaluate
from openinfer.ops.recurrent import activations, window


def _apply(xp: Any, name: str, x: Any) -> Any:
    dtype = x.dtype.name
    text = "where(a < 0, 0, a)" if name == "Relu" else UNARY[name]
    return evaluate(Formula(text, dtype, dtype, DEFAULTS.get(name, {})), xp, [x])


class _Layer:
    """The parameters of one direction. `act(number, x)` applies an activation after the node's clip."""

    def __init__(self, call: Call, direction: int, names: tuple[str, ...], hidden: int) -> None:
        self.xp, self.node, self.names, self.hidden = call.xp, call.node, names, hidden
        self.input, self.recurrence = call.array(1)[direction].T, call.array(2)[direction].T
        both, peephole = call.optional(3), call.optional(7)
        gates = self.input.shape[1]
        self.input_bias = None if both is None else both[direction, :gates]
        self.recurrent_bias = None if both is None else both[direction, gates:]
        self.peephole = None if peephole is None else [peephole[direction, i * hidden : (i + 1) * hidden] for i in range(3)]
        self.clip = float(call.attribute("clip", 0.0))

    def act(self, number: int, x: Any) -> Any:
        """Activation `number` of the clipped input."""
        if self.clip:
            x = self.xp.clip(x, x.dtype.type(-self.clip), x.dtype.type(self.clip))
        return _apply(self.xp, self.names[number], x)

    def gates(self, x: Any) -> list[Any]:
        """The columns of `x` gate by gate."""
        return [x[..., i * self.hidden : (i + 1) * self.hidden] for i in range(x.shape[-1] // self.hidden)]

    def project(self, x: Any) -> Any:
        """x · Wᵀ + the input's bias, for all steps at once."""
        y = self.xp.matmul(x, self.input)
        return y if self.input_bias is None else y + self.input_bias

    def recur(self, h: Any, first: int, last: int) -> Any:
        """h · Rᵀ + the recurrent bias, for the gates `first` … `last` - 1."""
        columns = slice(first * self.hidden, last * self.hidden)
        y = self.xp.matmul(h, self.recurrence[:, columns])
        return y if self.recurrent_bias is None else y + self.recurrent_bias[columns]


def _lstm(layer: _Layer, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    i, o, f, g = layer.gates(x + layer.recur(h, 0, 4))
    if layer.peephole is not None:
        i, f = i + layer.peephole[0] * c, f + layer.peephole[2] * c
    i = layer.act(0, i)
    f = i.dtype.type(1) - i if layer.node.attribute("input_forget", 0) else layer.act(0, f)
    new = f * c + i * layer.act(1, g)
    if layer.peephole is not None:
        o = o + layer.peephole[1] * new
    return layer.act(0, o) * _apply(layer.xp, layer.names[2], new), new


def _gru(layer: _Layer, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    given = layer.gates(x)
    z, r = (layer.act(0, a + b) for a, b in zip(given, layer.gates(layer.recur(h, 0, 2)), strict=False))
    after = layer.node.attribute("linear_before_reset", 0)
    product = r * layer.recur(h, 2, 3) if after else layer.recur(r * h, 2, 3)
    candidate = layer.act(1, given[2] + product)
    return z * (h - candidate) + candidate, c


def _rnn(layer: _Layer, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    return layer.act(0, x + layer.recur(h, 0, 1)), c


CELLS = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


def _recurrent(call: Call) -> list[Any]:
    xp, node, s = call.xp, call.node, window(call.node, values(call))
    if call.array(0).dtype.kind != "f":
        raise NotCompiled(f"dtype {call.array(0).dtype}")
    names = activations(node, s.directions)
    x = call.array(0).transpose(1, 0, 2) if s.batch_first else call.array(0)
    lengths = call.optional(4)
    length = None if lengths is None else xp.clip(lengths, 0, s.steps).astype("int64")
    steps = xp.arange(s.steps).reshape(-1, 1)
    alive = None if length is None else steps < length
    every, last_h, last_c = [], [], []
    for direction in range(s.directions):
        backward = direction == 1 or node.attribute("direction", "forward").lower() == "reverse"
        # Step t of a sequence read backwards: from its own end to its beginning.
        turned = None if length is None else xp.expand_dims(xp.where(alive, length - 1 - steps, steps), 2)
        layer = _Layer(call, direction, names[direction if len(names) > 1 else 0], s.hidden)
        projected = layer.project(_reversed(xp, x, turned) if backward else x)
        h, c = (_initial(call, position, direction, s) for position in (5, 6))
        outputs = []
        for t in range(s.steps):
            new_h, new_c = CELLS[node.op](layer, projected[t], h, c)
            if alive is not None:
                mask = alive[t].reshape(-1, 1)
                outputs.append(xp.where(mask, new_h, xp.zeros_like(new_h)))
                new_h, new_c = xp.where(mask, new_h, h), xp.where(mask, new_c, c)
            else:
                outputs.append(new_h)
            h, c = new_h, new_c
        y = xp.stack(outputs, 0) if outputs else xp.zeros((0, s.batch, s.hidden), x.dtype)
        every.append(_reversed(xp, y, turned) if backward else y)
        last_h.append(h)
        last_c.append(c)
    # [steps, batch, directions, hidden] first: both layouts are a transposition of it.
    y, y_h, y_c = xp.stack(every, 2), xp.stack(last_h, 1), xp.stack(last_c, 1)
    found = [y.transpose(1, 0, 2, 3) if s.batch_first else y.transpose(0, 2, 1, 3)]
    found += [state if s.batch_first else state.transpose(1, 0, 2) for state in (y_h, y_c)[: 2 if node.op == "LSTM" else 1]]
    return found


def _reversed(xp: Any, x: Any, turned: Any) -> Any:
    if turned is None:
        return xp.flip(x, 0)
    return xp.take_along_axis(x, xp.broadcast_to(turned, x.shape), 0)


def _initial(call: Call, position: int, direction: int, s: Any) -> Any:
    given = call.optional(position)
    if given is None:
        return call.xp.zeros((s.batch, s.hidden), call.array(0).dtype)
    return given[:, direction] if s.batch_first else given[direction]


MEANINGS: Meanings = {("", name): Meaning(_recurrent) for name in CELLS}
