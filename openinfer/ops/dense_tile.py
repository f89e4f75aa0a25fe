"""The register tile and the epilogue that the dense kernels share."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable

from openinfer.ir.graph import Node
from openinfer.ops._base import Target

FUSIBLE_ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")
FLOPS_PER_NS = {"float32": 80.0, "float64": 40.0}


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """What the kernel does to a result before it is stored: an activation with up to two numbers."""

    activation: str | None = None
    low_bound: float = 0.0
    high_bound: float = 0.0

    @property
    def statics(self) -> dict[str, Hashable]:
        """The kernel factory's arguments."""
        return dataclasses.asdict(self)


def epilogue(node: Node) -> Epilogue:
    """The activation that the fusion pass left on the node."""
    activation = node.attribute("activation")
    if activation == "LeakyRelu":
        return Epilogue(activation, float(node.attribute("leak", 0.01)))
    if activation == "Clip":
        return Epilogue(activation, float(node.attribute("min", float("-inf"))), float(node.attribute("max", float("inf"))))
    return Epilogue(activation)


def tile_shape(n: int, dtype: str, target: Target, *, fixed: bool) -> tuple[int, int]:
    """Rows and vectors of the register tile: as many accumulators as the register file holds beside the operands.

    Where `n` is `fixed` in the model, the width wastes the fewest columns of the last panel; otherwise it is one of three, so that a new
    length seldom needs new code.
    """
    registers, lanes = target.machine.vector_registers, target.machine.lanes(dtype)
    needed, usual = max(1, -(-n // lanes)), 4 if registers >= 32 else 2
    if target.engine.tile_vectors:
        vectors = target.engine.tile_vectors
    elif not fixed:
        vectors = next(width for width in (1, 2, usual) if width >= min(needed, usual))
    elif needed <= usual:
        vectors = needed
    else:
        vectors = min((usual, usual + 1, usual + 2, usual - 1), key=lambda width: -(-needed // width) * width)
    # Half the registers hide the latency of the fma; more rows read the panel less often but leave more of them over at the end.
    most = max(1, min(12, (registers - vectors - 2) // vectors))
    rows = target.engine.tile_rows or min(most, -(-registers // (2 * vectors)))
    return rows, vectors
