"""Erf and what is made of it, and Elu and its kin, against SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import generator
from lowering import make_node, run_node
from scipy.special import erf


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_and_gelu(dtype):
    rng = generator()
    tolerance = 5e-7 if dtype == "float32" else 1e-15
    x = np.concatenate([rng.uniform(-7, 7, 1001), 10.0 ** rng.uniform(-6, 0, 300), [0.0, np.inf, -np.inf]]).astype(dtype)
    wide = x.astype(np.float64)
    found = run_node(make_node("Erf", ["x"], version=13), {"x": x})[0]
    assert (np.abs(found - erf(wide)) <= tolerance * np.abs(erf(wide))).all()
    assert np.abs(found).max() == 1
    finite = np.isfinite(x)
    expected = 0.5 * wide[finite] * (1 + erf(wide[finite] / np.sqrt(2)))
    found = run_node(make_node("Gelu", ["x"], version=20), {"x": x[finite]})[0]
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    assert np.isnan(run_node(make_node("Erf", ["x"], version=13), {"x": np.array([np.nan], dtype)})[0]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_negative_side_of_elu_keeps_its_digits_near_zero(dtype):
    rng = generator()
    tolerance = 5e-7 if dtype == "float32" else 2e-15
    x = np.concatenate([-(10.0 ** rng.uniform(-12, 1.5, 2001)), -rng.uniform(0.3, 0.4, 500), [-0.34, -0.0, -np.inf]]).astype(dtype)
    expected = np.expm1(x.astype(np.float64))
    # Selu's own constants, as float32 holds them.
    for op, scale in (("Elu", 1.0), ("Celu", 1.0), ("Selu", 1.67326319217681884765625 * 1.05070102214813232421875)):
        found = run_node(make_node(op, ["x"], version=12), {"x": x})[0]
        assert (np.abs(found - scale * expected) <= tolerance * np.abs(scale * expected)).all(), op
    assert np.isnan(run_node(make_node("Elu", ["x"], version=12), {"x": np.array([np.nan], dtype)})[0]).all()
