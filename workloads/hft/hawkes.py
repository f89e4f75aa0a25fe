"""Mutually exciting point processes with exponential kernels: λ_i(t) = μ_i + Σ_{t_k < t} α_{i, type_k} β e^{-β (t - t_k)}.

Simulation is exact (Ogata 1981); the log-likelihood uses the recursion of Ozaki (1979), solved for all events at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Hawkes:
    """`base` μ in events per second, shape [d]; `branching` α, shape [d, d]: expected children of type i per event of type j; `decay`
    β in 1/s.
    """

    base: Floats
    branching: Floats
    decay: float

    @property
    def rate(self) -> float:
        """Stationary events per second, all types together."""
        return float(np.linalg.solve(np.eye(len(self.base)) - self.branching, self.base).sum())

    def simulate(self, events: int, seed: int, opening: int | None = None) -> tuple[Floats, Ints]:
        """Times in seconds and types of the first `events` events after an empty past, or after one event of type `opening` at 0, which is
        not among them.
        """
        generator = np.random.default_rng(seed)
        base, jumps = self.base.tolist(), (self.branching * self.decay).T.tolist()
        total_base, kinds = sum(base), range(len(base))
        excited = [0.0] * len(base) if opening is None else list(jumps[opening])
        times, types = np.empty(events), np.empty(events, np.int64)
        now, count = 0.0, 0
        waits: Iterator[float] = iter(())
        choices: Iterator[float] = iter(())
        while count < events:
            try:
                wait, choice = next(waits), next(choices)
            except StopIteration:
                waits, choices = iter(generator.exponential(size=65536).tolist()), iter(generator.random(65536).tolist())
                continue
            bound = total_base + sum(excited)
            wait /= bound
            now += wait
            fade = math.exp(-self.decay * wait)
            excited = [value * fade for value in excited]
            mark = choice * bound
            for kind in kinds:
                mark -= base[kind] + excited[kind]
                if mark < 0:
                    times[count], types[count] = now, kind
                    count += 1
                    row = jumps[kind]
                    excited = [excited[i] + row[i] for i in kinds]
                    break
        return times, types

    def log_likelihood(self, times: Floats, types: Ints) -> float:
        """Log-likelihood of the events on [0, last time]."""
        size = len(self.base)
        intensity = self.base[types] + np.einsum("kj,kj->k", memory(times, types, size, self.decay), self.branching[types])
        end = float(times[-1])
        left = 1.0 - np.exp(-self.decay * (end - times))
        children = np.array([left[types == j].sum() for j in range(size)])
        return float(np.log(intensity).sum() - self.base.sum() * end - (self.branching @ children).sum())


def memory(times: Floats, types: Ints, size: int, decay: float) -> Floats:
    """[n, size]: Σ β e^{-β (t - t_k)} over the earlier events of each type, before every event. The recursion over events as a parallel
    prefix (Hillis & Steele 1986); it ends once the past has faded.
    """
    fade = np.exp(-decay * np.diff(times, prepend=times[:1]))
    state = np.zeros((len(times), size))
    state[np.arange(1, len(times)), types[:-1]] = decay * fade[1:]
    fade[0] = 0.0
    reach = 1
    while reach < len(times) and fade.any():
        state[reach:] += fade[reach:, None] * state[:-reach]
        fade[reach:] *= fade[:-reach].copy()
        fade[:reach] = 0.0
        reach *= 2
    return state
