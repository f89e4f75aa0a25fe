"""Weights of dense layers in the order in which the kernels read them. Pure NumPy, once per load."""

from __future__ import annotations

import numpy as np

from openinfer.ir.graph import Array


def pack_panels(b: Array, width: int) -> Array:
    """B[k, n] → panels[ceil(n / width), k, width], zero beyond column n."""
    k, n = b.shape
    panels = -(-n // width)
    padded = np.zeros((k, panels * width), b.dtype)
    padded[:, :n] = b
    return np.ascontiguousarray(padded.reshape(k, panels, width).transpose(1, 0, 2))


def pad_vector(values: Array, width: int) -> Array:
    """A vector, zero up to a whole number of panels."""
    padded = np.zeros(-(-len(values) // width) * width, values.dtype)
    padded[: len(values)] = values
    return padded
