"""Every compiled operator, by domain and name. A family module lists its own in `OPERATORS`; this is the one place that joins them."""

from __future__ import annotations

from openinfer.ops import (
    batch_norm,
    conv,
    conv_transpose,
    dense,
    elementwise,
    indexing,
    known,
    movement,
    normalize,
    pool,
    recurrent,
    reduce,
    resize,
    scan,
    softmax,
    trees,
)
from openinfer.ops._base import Operator

OPERATORS: dict[tuple[str, str], Operator] = {
    **batch_norm.OPERATORS,
    **conv.OPERATORS,
    **conv_transpose.OPERATORS,
    **dense.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **known.OPERATORS,
    **movement.OPERATORS,
    **normalize.OPERATORS,
    **pool.OPERATORS,
    **recurrent.OPERATORS,
    **reduce.OPERATORS,
    **resize.OPERATORS,
    **scan.OPERATORS,
    **softmax.OPERATORS,
    **trees.OPERATORS,
}


def find(domain: str, op: str) -> Operator | None:
    """The operator, or `None` where nothing is compiled under that name."""
    return OPERATORS.get((domain, op))
