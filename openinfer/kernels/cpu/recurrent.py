"""LSTM, GRU and RNN over a window whose input projections are already computed.

    for each time step:
        pre = h · R + recurrent bias                 # the `gemm` of dense, all gates at once
        for each row: h, c = cell(pre + projection)  # whole vectors of units, gates fused

A block is a tile of sequences in one direction; sequences do not meet, so each keeps its bits in every batch. The arithmetic of a cell
stands in `recurrent_cells`.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb

from openinfer.kernels.cpu.dense import gemm
from openinfer.kernels.cpu.pointers import POINTERS, i32
from openinfer.kernels.cpu.recurrent_cells import GATES, candidate_of_gru, cell_of
from openinfer.kernels.cpu.vectors import widest


@functools.cache
def recurrent(
    *,
    op: str,
    dtype: str,
    hidden: int,
    rows: int,
    vectors: int,
    activations: tuple[tuple[str, ...], ...],
    clip: float,
    peephole: bool,
    coupled: bool,
    reset_after: bool,
    reverse: bool,
    lengths: bool,
    initial_h: bool,
    initial_c: bool,
    every: bool,
    last_h: bool,
    last_c: bool,
) -> Any:
    """recurrent(projection, weights, bias, peephole, lengths, initial_h, initial_c, h, c, pre, y, y_h, y_c, steps, batch, directions,
    projection_t, projection_b, y_t, y_d, y_b, state_d, state_b, low, high).

    `activations` per direction. The flags say which operands exist; an absent one may be any address. `projection` holds rows of
    directions · gates · hidden, `projection_t` and `projection_b` rows apart; the strides of `y`, `y_h`, `y_c` and the initial states are
    in elements. `h`, `c` and `pre` are working memory, `h` and `c` [directions, batch, hidden], all with a vector to spare.
    `reset_after` is the GRU's `linear_before_reset`.
    """
    vector, pointer = widest(dtype), POINTERS[dtype]
    item, lanes = vector.item_bytes, vector.lanes
    gates = GATES[op]
    split = op == "GRU" and not reset_after
    first_gates = gates - 1 if split else gates
    width = vectors * lanes
    columns = first_gates * hidden
    panels, candidate_panels = -(-columns // width), -(-hidden // width)
    matrix_bytes = (panels + candidate_panels * split) * width * hidden * item
    bias_bytes = (panels + candidate_panels * split) * width * item
    first_bytes, first_bias = panels * width * hidden * item, panels * width * item
    multiply = gemm.__wrapped__(dtype=dtype, k=hidden, rows=rows, vectors=vectors)  # its own: one that is inlined cannot be called
    cells = [cell_of(op, vector, hidden, names, clip, peephole, coupled, reset_after) for names in activations]
    forward_cell, backward_cell = cells[0], cells[-1]
    candidates = [candidate_of_gru(vector, hidden, names, clip) for names in activations] if split else [forward_cell]
    forward_candidate, backward_candidate = candidates[0], candidates[-1]
    block_elements = rows * (gates + split) * hidden + lanes

    @nb.njit(error_model="numpy")
    def kernel(
        projection: int,
        weights: int,
        bias: int,
        peep: int,
        length: int,
        start_h: int,
        start_c: int,
        h: int,
        c: int,
        pre: int,
        y: int,
        y_h: int,
        y_c: int,
        steps: int,
        batch: int,
        directions: int,
        projection_t: int,
        projection_b: int,
        y_t: int,
        y_d: int,
        y_b: int,
        state_d: int,
        state_b: int,
        low: int,
        high: int,
    ) -> None:
        tiles = (batch + rows - 1) // rows
        for block in range(low, high):
            d, b0 = block // tiles, block % tiles * rows
            n = min(rows, batch - b0)
            backward = reverse or d == 1
            state = (d * batch + b0) * hidden
            own = pre + block * block_elements * item
            own_reset, own_candidate = own + n * columns * item, own + n * (columns + hidden) * item
            matrix, offset = weights + d * matrix_bytes, bias + d * bias_bytes
            blocks = (n + rows - 1) // rows
            for i in range(n):
                at = d * state_d + (b0 + i) * state_b
                for j in range(hidden):
                    pointer(h)[state + i * hidden + j] = pointer(start_h)[at + j] if initial_h else 0
                    pointer(c)[state + i * hidden + j] = pointer(start_c)[at + j] if initial_c else 0
            for t in range(steps):
                # Every other step takes the panels in reverse: the last ones read are still in the nearest cache.
                for index in range(blocks * panels):
                    panel = blocks * panels - 1 - index if t & 1 else index
                    multiply(h + state * item, matrix, offset, own, n, columns, hidden, columns, panel, panel + 1)
                if split:
                    for i in range(n):
                        last = min(max(i32(length)[b0 + i], 0), steps) if lengths else steps
                        if t < last:
                            row = (last - 1 - t if backward else t) * projection_t + (b0 + i) * projection_b
                            x = projection + (row * directions + d) * gates * hidden * item
                            hi = h + (state + i * hidden) * item
                            gate, reset = own + i * columns * item, own_reset + i * hidden * item
                            if d == 0:
                                forward_cell(gate, x, hi, reset, peep, hi)
                            else:
                                backward_cell(gate, x, hi, reset, peep, hi)
                    multiply(
                        own_reset, matrix + first_bytes, offset + first_bias, own_candidate, n, hidden, hidden, hidden, 0,
                        blocks * candidate_panels,
                    )  # fmt: skip
                for i in range(n):
                    last = min(max(i32(length)[b0 + i], 0), steps) if lengths else steps
                    if t < last:
                        when = last - 1 - t if backward else t
                        x = projection + ((when * projection_t + (b0 + i) * projection_b) * directions + d) * gates * hidden * item
                        hi, ci = h + (state + i * hidden) * item, c + (state + i * hidden) * item
                        out = y + (when * y_t + d * y_d + (b0 + i) * y_b) * item if every else hi
                        gate = own + i * columns * item
                        if split:
                            candidate = own_candidate + i * hidden * item
                            if d == 0:
                                forward_candidate(gate, x, hi, candidate, peep, out)
                            else:
                                backward_candidate(gate, x, hi, candidate, peep, out)
                        elif d == 0:
                            forward_cell(gate, x, hi, ci, peep, out)
                        else:
                            backward_cell(gate, x, hi, ci, peep + 3 * hidden * item, out)
                    elif every:
                        for j in range(hidden):
                            pointer(y)[t * y_t + d * y_d + (b0 + i) * y_b + j] = 0
            for i in range(n):
                at = d * state_d + (b0 + i) * state_b
                for j in range(hidden):
                    if last_h:
                        pointer(y_h)[at + j] = pointer(h)[state + i * hidden + j]
                    if last_c:
                        pointer(y_c)[at + j] = pointer(c)[state + i * hidden + j]

    return kernel
