"""One way to call one engine in the benchmark, and what the ways have in common: inputs refilled outside the clock, inside it, or given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from openinfer.ir.graph import Array


@dataclasses.dataclass(frozen=True)
class Contender:
    """`prepare(inputs)` runs outside the clock, `call()` inside."""

    name: str
    kind: str
    prepare: Callable[[Mapping[str, Array]], object]
    call: Callable[[], object]


class Held:
    """The inputs of the next call, for sides that take them inside the clock."""

    def __init__(self) -> None:
        self.inputs: Mapping[str, Any] = {}

    def hold(self, inputs: Mapping[str, Array]) -> None:
        """Remember, outside the clock."""
        self.inputs = inputs


def fill(mine: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
    """Copy a request into the arrays that a call is bound to."""
    for name, array in mine.items():
        array[...] = inputs[name]


def refill(mine: Mapping[str, Array], held: Held, call: Callable[[], object]) -> Callable[[], None]:
    """The held request into the bound arrays, and the call."""
    if len(mine) == 1:
        ((name, array),) = mine.items()

        def one() -> None:
            array[...] = held.inputs[name]
            call()

        return one

    def several() -> None:
        fill(mine, held.inputs)
        call()

    return several
