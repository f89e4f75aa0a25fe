"""Block times as real machines make them: offsets of whole processes, autocorrelated blocks, heavy tails, rare stalls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def simulated_rounds(
    rng: np.random.Generator, rounds: int, ratio: float = 1.0, *, blocks: int = 8, process_sd: float = 0.01, block_sd: float = 0.01
) -> list[NDArray[np.float64]]:
    """Block medians of one arm over fresh processes; `ratio` is its true level. The process offset has tails of a t with 4 degrees."""
    return [_process(rng, ratio, blocks, process_sd, block_sd) for _ in range(rounds)]


def _process(rng: np.random.Generator, ratio: float, blocks: int, process_sd: float, block_sd: float) -> NDArray[np.float64]:
    offset = process_sd * rng.standard_t(4) / np.sqrt(2)
    shocks = block_sd * rng.standard_t(3, size=blocks)
    noise = np.empty(blocks)
    state = rng.normal(0, block_sd)
    for index, shock in enumerate(shocks):
        state = 0.5 * state + shock
        noise[index] = state
    stalls = np.where(rng.random(blocks) < 0.03, rng.exponential(0.5, blocks), 0.0)
    times: NDArray[np.float64] = 1000.0 * ratio * np.exp(offset + noise + stalls)
    return times
