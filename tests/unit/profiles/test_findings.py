"""What is planted is the first finding; where nothing is planted, none of the rules but the hot layer's speaks."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from models import mlp, model
from onnx import TensorProto, helper
from openinfer.profiles import ceiling, layers, neighbours
from openinfer.profiles.profile_record import ProfileRecord, Row
from openinfer.profiles.session import Session

import openinfer
from openinfer.errors import InputError

DEFECTS = {"lock", "leak", "layout", "neighbour", "unsteady"}


def draw(*shape: int) -> np.ndarray:
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print(f"{seed=}")
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def calls_for(engine, x, seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        engine.run({"x": x})


def test_a_planted_lock_is_the_first_finding():
    x = draw(1, 40)
    # Whatever else runs on this machine is not the matter of this test.
    with openinfer.load(mlp()) as engine, Session(engine, off=("noise", "stacks")) as session:
        planted = threading.Lock()
        calls_to_go = threading.Semaphore(60)

        def serve() -> None:
            while calls_to_go.acquire(blocking=False):
                with planted:
                    threading.Event().wait(0.005)  # what no one should do while holding a lock
                    engine.run({"x": x})

        threads = [threading.Thread(target=serve) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    first = session.record().findings[0]
    assert first.kind == "lock" and "planted (test_findings.py:" in first.sentence
    assert "ms" in first.evidence and first.severity > 0.5


def test_a_planted_leak_is_the_first_finding():
    x, kept = draw(1, 40), []
    with openinfer.load(mlp()) as engine, Session(engine, off=("noise", "stacks")) as session:
        end = time.perf_counter() + 2.5
        while time.perf_counter() < end:
            engine.run({"x": x})
            page = mmap.mmap(-1, 1 << 18)
            page[:: mmap.PAGESIZE] = b"x" * ((1 << 18) // mmap.PAGESIZE)
            kept.append(page)
            threading.Event().wait(0.01)
    first = session.record().findings[0]
    assert first.kind == "leak" and "MB/s (99%: " in first.evidence


def test_a_planted_layout_is_the_first_finding():
    # A transposition of a power of two on a side: each line it reads maps to the same few sets of the cache.
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Transpose", ["r"], ["t"], name="turn", perm=[1, 0])]
    made = model([*nodes, helper.make_node("Neg", ["t"], ["y"])], *({name: (TensorProto.FLOAT, [2048, 2048])} for name in "xy"))
    with openinfer.load(made) as engine:
        with Session(engine, off=("noise", "stacks")) as session:
            calls_for(engine, draw(2048, 2048), 0.5)
        peak = ceiling.measure()
        session.add_layers(layers.measure(engine, {"x": draw(2048, 2048)}, peak, 0.5), peak)
    first = session.record().findings[0]
    assert first.kind == "layout" and "Transpose" in first.sentence and "stride of 8192 bytes" in first.evidence


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="needs a kernel with /proc")
def test_a_real_neighbour_is_seen_with_what_it_takes():
    script = "import time\nend = time.time() + 20\nwhile time.time() < end: pass"
    # Its parent ends at once, so that it is no relative of this process.
    starter = f"import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {script!r}], stdout=s.DEVNULL).pid)"
    found = subprocess.run([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, check=True).stdout
    planted = int(found.split()[0])
    try:
        before = neighbours.scan()
        end = time.perf_counter() + 1
        while time.perf_counter() < end:
            pass
        noise = neighbours.between(before, neighbours.scan(), os.getpid())
    finally:
        os.kill(planted, 9)
    (name,) = [name for name in noise.others if name.endswith(f"process {planted}")]
    assert noise.others[name] > 0.05 and not any(name.endswith(f"process {os.getpid()}") for name in noise.others)


def figures(*rows: tuple[str, str, str, int, float, str]) -> ProfileRecord:
    return ProfileRecord("", "", "", 0, "", 10.0, {}, [], [], {}, {}, [Row("1", *row) for row in rows])


def test_a_planted_neighbour_is_the_first_finding():
    from openinfer.profiles.findings import find

    waits = [("contention", "run queue", "", k, 0.4, "share") for k in range(20)]
    steady = [("memory", "resident", "", k * 10**8, 3e8 + k % 2, "bytes") for k in range(40)]
    others = [
        ("noise", "other process", "stress, process 12", -1, 0.93, "processors"),
        ("noise", "other process", "sshd, process 3", -1, 0.01, "processors"),
    ]
    first, *rest = find(figures(*waits, *steady, *others))
    assert first.kind == "neighbour" and "stress, process 12" in first.sentence and "93%" in first.evidence and not rest
    # A neighbour that nobody waits for is none.
    assert not find(figures(*[(*row[:4], 0.001, "share") for row in waits], *others))


def test_memory_that_stops_growing_is_no_leak():
    from openinfer.profiles.findings import find

    rows = [("memory", "resident", "", k * 10**8, 3e8 + 1e7 * min(k, 45), "bytes") for k in range(100)]
    assert not find(figures(*rows))
    assert find(figures(*[(*row[:4], 3e8 + 1e6 * k, "bytes") for k, row in enumerate(rows)]))[0].kind == "leak"


def test_nothing_planted_nothing_found():
    x = draw(1, 40)
    with openinfer.load(mlp()) as engine:
        calls_for(engine, x, 0.3)
        with Session(engine, off=("noise", "stacks")) as session:
            calls_for(engine, x, 2.5)
        peak = ceiling.measure()
        session.add_layers(layers.measure(engine, {"x": x}, peak, 0.2), peak)
    found = session.record().findings
    assert not [finding for finding in found if finding.kind in DEFECTS], found


def test_an_unknown_instrument_is_refused():
    with pytest.raises(InputError, match="unknown instrument 'lokcs'"):
        Session(off=("lokcs",))
