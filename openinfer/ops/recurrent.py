"""LSTM, GRU and RNN: one `gemm` for the input projections of every time step, then the `recurrent` kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from openinfer.ir.graph import Array, Node, TensorType
from openinfer.ops._base import Alias, NotCompiled, Operand, Operator, Packed, Scratch, Step, Target, Value, float_only, optional, required
from openinfer.ops.dense import constant_product
from openinfer.ops.dense_packing import pack_panels, pad_vector
from openinfer.ops.dense_tile import Epilogue, tile_shape

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
COMPILED_ACTIVATIONS = ("Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softsign")
DIRECTIONS = ("forward", "reverse", "bidirectional")
FLOPS_PER_NS, UNIT_NS, CALL_NS = 50.0, 1.0, 50.0

Inputs = Sequence[Value | None]


@dataclasses.dataclass(frozen=True)
class Window:
    """The sizes of a layer over a window."""

    steps: int
    batch: int
    inputs: int
    directions: int
    hidden: int
    batch_first: bool


def window(node: Node, inputs: Inputs) -> Window:
    """The layer's sizes; `NotCompiled` where the weights do not fit them."""
    x, w, r = required(inputs, 0), required(inputs, 1), required(inputs, 2)
    if node.version < 7:
        raise NotCompiled(f"opset {node.version}; compiled from 7")
    direction = node.attribute("direction", "forward").lower()
    if direction not in DIRECTIONS or len(x.shape) != 3 or len(r.shape) != 3:
        raise NotCompiled(f"direction {direction!r}, X of shape {x.shape}")
    batch_first = bool(node.attribute("layout", 0))
    batch, steps = x.shape[:2] if batch_first else x.shape[1::-1]
    directions, hidden, gates = 1 + (direction == "bidirectional"), r.shape[2], GATES[node.op]
    if w.shape != (directions, gates * hidden, x.shape[2]) or r.shape != (directions, gates * hidden, hidden) or not hidden:
        raise NotCompiled(f"W of shape {w.shape} and R of shape {r.shape} for {directions} directions of X {x.shape}")
    state = (batch, directions, hidden) if batch_first else (directions, batch, hidden)
    fitting = {3: (directions, 2 * gates * hidden), 4: (batch,), 5: state, 6: state, 7: (directions, 3 * hidden)}
    for position, shape in fitting.items():
        value, dtype = optional(inputs, position), "int32" if position == 4 else x.dtype
        if value is not None and (value.shape != shape or value.dtype != dtype):
            raise NotCompiled(f"{value.name!r} of {value.dtype} {value.shape}; compiled for {dtype} {shape}")
    return Window(steps, batch, x.shape[2], directions, hidden, batch_first)


def infer(node: Node, inputs: Inputs) -> list[TensorType]:
    """Y [steps, directions, batch, hidden], Y_h and Y_c [directions, batch, hidden]; the batch first with layout 1."""
    dtype, s = float_only(required(inputs, 0)), window(node, inputs)
    if s.batch_first:
        every, last = (s.batch, s.steps, s.directions, s.hidden), (s.batch, s.directions, s.hidden)
    else:
        every, last = (s.steps, s.directions, s.batch, s.hidden), (s.directions, s.batch, s.hidden)
    return [TensorType(dtype, every), TensorType(dtype, last), *[TensorType(dtype, last)] * (node.op == "LSTM")]


def lower(node: Node, inputs: Inputs, outputs: Inputs, target: Target) -> list[Step | Alias]:
    """The projection, then the recurrence; a block is a tile of sequences in one direction."""
    x, s, gates = required(inputs, 0), window(node, inputs), GATES[node.op]
    dtype, hidden, directions = x.dtype, s.hidden, s.directions
    weight, recurrence = _constant(inputs, 1), _constant(inputs, 2)
    if weight is None or recurrence is None:
        raise NotCompiled("W or R computed at run time")
    bias, peephole = _constant(inputs, 3), _constant(inputs, 7)
    both = np.zeros((directions, 2, gates * hidden), dtype) if bias is None else bias.reshape(directions, 2, gates * hidden)
    lengths, initial_h, initial_c = optional(inputs, 4), optional(inputs, 5), optional(inputs, 6)
    name = next(output for output in node.outputs if output)
    item, lanes = np.dtype(dtype).itemsize, target.machine.lanes(dtype)
    rows, vectors = tile_shape(gates * hidden, dtype, target, fixed=True)
    width = vectors * lanes
    reset_after = node.op != "GRU" or bool(node.attribute("linear_before_reset", 0))
    # A GRU that resets before the product multiplies twice: by the gates' matrix, then by the candidate's.
    bounds = [(0, gates * hidden)] if reset_after else [(0, 2 * hidden), (2 * hidden, 3 * hidden)]

    def matrices() -> Array:
        parts = [pack_panels(r[low:high].T, width).reshape(-1) for r in recurrence for low, high in bounds]
        return np.concatenate(parts)

    def biases() -> Array:
        return np.concatenate([pad_vector(vector[1, low:high], width) for vector in both for low, high in bounds])

    projection = Scratch("projection", (s.steps * s.batch * directions * gates * hidden + width) * item)
    state_bytes = (directions * s.batch * hidden + lanes) * item
    tiles = -(-s.batch // rows)
    block_elements = rows * (gates + (not reset_after)) * hidden + lanes
    h, c = Scratch("h", state_bytes), Scratch("c", state_bytes)
    pre = Scratch("pre", (directions * max(1, tiles) * block_elements + width) * item)
    y, y_h, y_c = (optional(outputs, position) for position in range(3))
    packed_peephole: Operand = h
    if peephole is not None:
        packed_peephole = Packed(f"{name}:{lanes}:peephole", lambda: np.pad(peephole.reshape(-1), (0, lanes)))
    statics = {
        "op": node.op,
        "dtype": dtype,
        "hidden": hidden,
        "rows": rows,
        "vectors": vectors,
        "activations": activations(node, directions),
        "clip": float(node.attribute("clip", 0.0)),
        "peephole": peephole is not None,
        "coupled": node.op == "LSTM" and bool(node.attribute("input_forget", 0)),
        "reset_after": reset_after,
        "reverse": node.attribute("direction", "forward").lower() == "reverse",
        "lengths": lengths is not None,
        "initial_h": initial_h is not None,
        "initial_c": initial_c is not None,
        "every": y is not None,
        "last_h": y_h is not None,
        "last_c": y_c is not None,
    }
    operands: tuple[Operand, ...] = (
        projection,
        Packed(f"{name}:{width}:recurrence", matrices),
        Packed(f"{name}:{width}:recurrent bias", biases),
        packed_peephole,
        lengths or h,
        initial_h or h,
        initial_c or h,
        h,
        c,
        pre,
        y or h,
        y_h or h,
        y_c or h,
    )
    if s.batch_first:
        strides = (1, s.steps, directions * hidden, hidden, s.steps * directions * hidden, hidden, directions * hidden)
    else:
        strides = (s.batch, 1, directions * s.batch * hidden, s.batch * hidden, hidden, s.batch * hidden, hidden)
    work = s.steps * s.batch * directions * gates * hidden
    step = Step(
        "recurrent",
        statics,
        operands,
        (s.steps, s.batch, directions, *strides),
        directions * tiles,
        CALL_NS + work * (2.0 * hidden / FLOPS_PER_NS + UNIT_NS),
        (7, 8, 9, *(position for position, value in ((10, y), (11, y_h), (12, y_c)) if value is not None)),
    )
    matrix = weight.reshape(directions * gates * hidden, s.inputs).T
    first = constant_product(name, x, matrix, both[:, 0].reshape(-1), s.steps * s.batch, projection, Epilogue(), target)
    return [first, step]


def activations(node: Node, directions: int) -> tuple[tuple[str, ...], ...]:
    """The activations' names per direction; one entry where all directions share them."""
    default = ACTIVATIONS[node.op]
    given = tuple(node.attribute("activations", default * directions))
    names = {name.lower(): name for name in COMPILED_ACTIVATIONS}
    found = tuple(names.get(name.lower()) for name in given)
    if len(found) != len(default) * directions or node.attribute("activation_alpha") or node.attribute("activation_beta"):
        raise NotCompiled(f"activations {', '.join(given)} with parameters of their own")
    known = tuple(name for name in found if name is not None)
    if len(known) != len(found):
        raise NotCompiled(f"activations {', '.join(given)}; compiled: {', '.join(COMPILED_ACTIVATIONS)}")
    per_direction = tuple(known[i : i + len(default)] for i in range(0, len(known), len(default)))
    return tuple(dict.fromkeys(per_direction))


def _constant(inputs: Inputs, position: int) -> Array | None:
    value = optional(inputs, position)
    if value is None:
        return None
    if not value.constant or value.data is None:
        raise NotCompiled(f"{value.name!r} computed at run time")
    if value.dtype != required(inputs, 0).dtype:
        raise NotCompiled(f"{value.name!r} of {value.dtype} for X of {required(inputs, 0).dtype}")
    return value.data


OPERATORS = {("", name): Operator(infer, lower) for name in GATES}
