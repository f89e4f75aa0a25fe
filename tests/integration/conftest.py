"""One small study for every test that reads one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models import mlp
from openinfer.tuner.study import Study, tune
from openinfer.workloads.trace import Trace, write


@pytest.fixture(scope="session")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two candidates on a small model, at `tuned/hft.toml` and `tuned/hft.study` below a folder of its own."""
    folder = tmp_path_factory.mktemp("small_study")
    (folder / "tuned").mkdir()
    onnx.save(mlp(), folder / "m.onnx")
    rng = np.random.default_rng(0)
    requests = rng.standard_normal((2000, 40)).astype(np.float32)
    write(Trace({"x": requests}, np.cumsum(rng.exponential(1e-4, 2000))), folder / "t.parquet")
    return tune(
        model=str(folder / "m.onnx"),
        trace=str(folder / "t.parquet"),
        slo="p99<1s",
        budget="2trials",
        output=folder / "tuned" / "hft.toml",
    )
