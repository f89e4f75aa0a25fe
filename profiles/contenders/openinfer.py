"""This engine: bound, bound and refilled, run."""

from __future__ import annotations

from collections.abc import Mapping

from openinfer.profiles.contenders._base import Contender, Held, fill, refill

from openinfer.engine import Engine
from openinfer.ir.graph import Array


def openinfer(engine: Engine, first: Mapping[str, Array]) -> list[Contender]:
    """The sides of a loaded engine; a model on the fallback has only `run`."""
    held = Held()

    contenders = [Contender("openinfer run", "run", held.hold, lambda: engine.run(held.inputs))]
    if not engine.statistics().fallback:
        mine = {name: array.copy() for name, array in first.items()}
        call = engine.bind(mine)
        contenders = [
            Contender("openinfer bound", "bound", lambda inputs: fill(mine, inputs), call),
            Contender("openinfer refill", "refill", held.hold, refill(mine, held, call)),
            *contenders,
        ]
    return contenders
