"""The program's stack frame starts on a cache line: spilled vectors never straddle two."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import openinfer

AND_RSP = b"\x48\x83\xe4"  # and rsp, imm8


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86-64 machine code")
def test_the_program_aligns_its_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENINFER_CACHE", str(tmp_path))
    weight = np.random.default_rng().standard_normal((70, 90)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [13, s]) for n, s in (("x", 70), ("y", 90))]
    graph = helper.make_graph([node], "dense", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with openinfer.load(model) as engine:
        engine.run({"x": np.ones((13, 70), np.float32)})
    objects = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert AND_RSP + b"\xc0" in objects  # -64
