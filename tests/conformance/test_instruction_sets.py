"""The tests of compiled kernels, run in child processes that compile for other processors: AVX2, and vectors of 16 bytes without fma."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openinfer.machine import _vector_unit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("processor", "isa"), [("haswell", "avx2"), ("x86-64", "generic")])
def test_kernels_are_right_on_another_processor(processor, isa, tmp_path):
    assert _vector_unit(processor, "")[0] == isa
    environment = {
        **{name: value for name, value in os.environ.items() if name != "NUMBA_CPU_FEATURES"},
        "NUMBA_CPU_NAME": processor,
        "OPENINFER_TEST_DRAWS": "1",
        "OPENINFER_CACHE": str(tmp_path),
    }
    # How threads share a layer and how sizes are asked for does not depend on the processor.
    chosen = ["-m", "kernels", "-k", "not two_threads and not asked_for and not follow_from"]
    command = [sys.executable, "-m", "pytest", *chosen, "-x", "-n", "0", "-p", "no:cacheprovider", str(ROOT / "tests" / "oracle")]
    # From outside the root, so that the child tests the package that this process has, and not the folder beside it.
    child = subprocess.run(
        [*command, "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stdout[-3000:] + child.stderr[-1000:]
    assert " passed" in child.stdout
