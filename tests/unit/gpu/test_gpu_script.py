"""`benchmarks/gpu.sh` on a machine without a GPU: it parses, and says that there is none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_script_parses():
    subprocess.run(["bash", "-n", str(ROOT / "benchmarks" / "gpu.sh")], check=True)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is not None, reason="CuPy is here; only a machine without it lacks a GPU for certain")
def test_without_a_gpu_it_says_what_is_missing():
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu.py")], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and done.stderr == ""
    assert done.stdout.startswith("no usable GPU: found no CuPy; run pip install") and "verdict: NOT RUN" in done.stdout
