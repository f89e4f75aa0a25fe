"""Simulated caches against what can be counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import model
from onnx import TensorProto, helper
from openinfer.profiles import cachegrind

import openinfer

REASON = cachegrind.missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "valgrind is there")


def test_a_pass_over_memory_misses_once_a_line(tmp_path):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    # More than any first-level cache: each line of the input and of the output is missed once, in every call.
    count = 1 << 18
    large = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [count])}, {"y": (TensorProto.FLOAT, [count])})
    small = model([helper.make_node("Relu", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [1024])}, {"y": (TensorProto.FLOAT, [1024])})
    found = {}
    for name, made in (("large", large), ("small", small)):
        path = tmp_path / f"{name}.onnx"
        onnx.save(made, path)
        x = np.random.default_rng(seed).standard_normal(made.graph.input[0].type.tensor_type.shape.dim[0].dim_value).astype(np.float32)
        with openinfer.load(str(path)) as engine:
            (found[name],) = cachegrind.simulate(engine, str(path), {"x": x})
    lines = count * 4 // 64
    assert found["large"].label == "Relu y"
    assert found["large"].first_misses == pytest.approx(2 * lines, rel=0.02)
    assert found["large"].accesses == pytest.approx(2 * count / 8, rel=0.05)
    assert found["small"].first_misses <= 4 and found["small"].accesses == pytest.approx(2 * 1024 / 8, rel=0.2)
