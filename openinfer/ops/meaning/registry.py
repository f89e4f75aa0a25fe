"""Every operator that has a meaning, by domain and name: all that is compiled for CPUs, and some more."""

from __future__ import annotations

from openinfer.ops.meaning import attention, dense, elementwise, indexing, movement, normalize, quantize, recurrent, reduce, trees, window
from openinfer.ops.meaning._base import Meaning, Meanings

MEANINGS: Meanings = {
    **attention.MEANINGS,
    **dense.MEANINGS,
    **elementwise.MEANINGS,
    **indexing.MEANINGS,
    **movement.MEANINGS,
    **normalize.MEANINGS,
    **quantize.MEANINGS,
    **recurrent.MEANINGS,
    **reduce.MEANINGS,
    **trees.MEANINGS,
    **window.MEANINGS,
}


def find(domain: str, op: str) -> Meaning | None:
    """The meaning, or `None` where nothing is known under that name."""
    return MEANINGS.get((domain, op))
