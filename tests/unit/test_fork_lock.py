"""A child forked while another thread holds every lock of an engine can use the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from models import mlp

from openinfer.fork_lock import ForkLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

SCRIPT = """
import contextlib, os, signal, sys, threading
import numpy as np
import openinfer
from openinfer.codegen import loader
from openinfer.runtime import entry_native

engine = openinfer.load(sys.argv[1])
program = engine._backend.program
held, done = threading.Event(), threading.Event()

def hold():
    with contextlib.ExitStack() as stack:
        for owner in (engine, engine._backend._executor, program, loader, entry_native):
            stack.enter_context(owner._lock.held())
        held.set()
        done.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    x = np.ones((3, 40), np.float32)
    bound = engine.bind({"x": x})
    bound()
    loader.compile_ir("define i32 @f() { ret i32 1 }")
    same = all((engine.run({"x": x})["probabilities"] == bound.outputs["probabilities"]).all() for _ in range(2))
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
done.set()
thread.join()
assert status == 0, status
"""


def test_a_child_finds_the_engine_s_locks_free(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(mlp().SerializeToString())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_child_that_forks_inside_the_block_leaves_it() -> None:
    script = """
import os
from openinfer.fork_lock import ForkLock
lock = ForkLock()
with lock.held():
    child = os.fork()
with lock.held(), lock.held():
    pass
if child == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_engine_lock_is_such_a_lock() -> None:
    import openinfer
    from openinfer.codegen import loader
    from openinfer.runtime import entry_native

    engine = openinfer.load(mlp())
    program = engine._backend.program
    assert program is not None
    assert all(isinstance(owner._lock, ForkLock) for owner in (engine, engine._backend._executor, program, loader, entry_native))
