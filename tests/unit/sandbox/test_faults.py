"""A worker that dies, hangs or takes too much costs the request that it was answering, and nothing else."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from sandbox_targets import CRASH, HANG, OVERRUN, RAISE

from openinfer.config import SandboxConfig
from openinfer.engine import load
from openinfer.errors import SandboxError
from openinfer.sandbox.calls import Calls
from openinfer.sandbox.host import Source
from openinfer.sandbox.ring import DATA_BYTES

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")


def _open(folder: Path, dynamic: bool = False, **knobs: Any) -> Calls:
    source = Source("sandbox_targets:open_doubler", {"dynamic": dynamic}, folder)
    return Calls(source, SandboxConfig(mode="process", **{"timeout_ms": 500, "shared_mb": 8, **knobs}))


@pytest.fixture(scope="module")
def doubler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    calls = _open(tmp_path_factory.mktemp("cache"))
    yield calls
    calls.client.close()


def _drawn(count: int = 100) -> Any:
    seed = secrets.randbits(32)
    print(f"{seed=}")
    return np.random.default_rng(seed).uniform(1, 2, count).astype(np.float32)


def _is_right(calls: Calls, count: int = 100) -> bool:
    x = _drawn(count)
    return np.array_equal(calls.run({"x": x})["y"], x * 2)


def _poisoned(kind: float) -> Any:
    x = _drawn()
    x[0] = kind
    return x


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (HANG, "did not answer within 500 ms"),
        (CRASH, "ended by SIGSEGV"),
        (OVERRUN, "more than sandbox.memory_mb = 1024 MiB"),
        (RAISE, "^in the sandbox: ValueError: the reason$"),
    ],
)
def test_what_goes_wrong_is_named_and_the_next_request_is_answered(doubler: Calls, kind: float, message: str) -> None:
    bound = doubler.bind(((100,),))
    with pytest.raises(SandboxError, match=message):
        doubler.run({"x": _poisoned(kind)})
    assert _is_right(doubler)
    bound.inputs["x"][...] = x = _drawn()
    bound()
    np.testing.assert_array_equal((bound.outputs or {})["y"], x * 2)


def test_one_of_many_fails_and_the_rest_are_answered(doubler: Calls) -> None:
    with pytest.raises(SandboxError, match="SIGSEGV"):
        doubler.run_many([{"x": _drawn()}, {"x": _poisoned(CRASH)}, {"x": _drawn()}])
    assert _is_right(doubler)


def test_requests_that_a_dead_worker_had_not_begun_are_answered_by_its_successor(doubler: Calls) -> None:
    _is_right(doubler)
    child = doubler.client._workers.active
    assert child is not None
    signal.pidfd_send_signal(child.descriptor, signal.SIGSTOP)
    right: list[bool] = []
    threads = [threading.Thread(target=lambda: right.append(_is_right(doubler))) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(doubler.client._flight) < 3:
        os.sched_yield()
    signal.pidfd_send_signal(child.descriptor, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert right == [True, True, True]


def test_the_model_is_loaded_again_where_the_template_dies(doubler: Calls) -> None:
    replaced = doubler.client.replaced
    os.kill(doubler.client._workers._host._template.pid, signal.SIGKILL)
    _wait_for(lambda: doubler.client.replaced > replaced)
    assert _is_right(doubler)


def test_a_process_with_many_open_files_has_a_sandbox(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip("needs 2,048 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 2048), limits[1]))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        calls = _open(tmp_path)
        try:
            x = np.ones(4, np.float32)
            assert (calls.run({"x": x})["y"] == 2 * x).all()
            worker = calls.client._workers.active
            assert worker is not None
            signal.pidfd_send_signal(worker.descriptor, signal.SIGKILL)
            while calls.client.replaced == 0:
                with contextlib.suppress(SandboxError):
                    calls.run({"x": x})
            assert (calls.run({"x": x})["y"] == 2 * x).all()
        finally:
            calls.client.close()
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_lost_spare_is_made_again(doubler: Calls) -> None:
    workers = doubler.client._workers
    _wait_for(lambda: workers.spare is not None)
    spare = workers.spare
    assert spare is not None
    signal.pidfd_send_signal(spare.descriptor, signal.SIGKILL)
    _wait_for(lambda: workers.spare is not None and workers.spare is not spare)
    assert _is_right(doubler)


def test_outputs_whose_shape_depends_on_the_values(tmp_path: Path) -> None:
    calls = _open(tmp_path, dynamic=True)
    try:
        for count in (0, 1, 1000, 3):  # 1000 needs a larger window
            x = np.full(1000, -1.0, np.float32)
            x[:count] = _drawn(count)
            np.testing.assert_array_equal(calls.run({"x": x})["y"], np.repeat(x[:count], 100))
    finally:
        calls.client.close()


def test_wipe_leaves_nothing_of_a_request(tmp_path: Path) -> None:
    calls = _open(tmp_path, wipe=True, spare=False)
    try:
        assert _is_right(calls)
        (lease,) = calls._idle[((100,),)]
        assert not bytes(lease._memory).strip(b"\0")
        bound = calls.bind(((100,),))
        bound.inputs["x"][...] = _drawn()
        bound()
        del bound
        gc.collect()
        assert not calls.client.ring.memory[DATA_BYTES:].strip(b"\0")
    finally:
        calls.client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused_and_does_not_disturb(doubler: Calls) -> None:
    child = os.fork()
    if child == 0:
        try:
            doubler.run({"x": _drawn()})
        except SandboxError:
            os._exit(17)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    assert _is_right(doubler)


def test_a_dropped_engine_ends_its_processes() -> None:
    engine = load(models.mlp(), {"sandbox": {"mode": "process"}})
    client = engine._backend._calls.client
    template, watcher = client._workers._host._template.pid, client._watcher
    del engine, client
    watcher.join(10)
    assert not Path(f"/proc/{template}").exists()


def _wait_for(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(2000):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it did not happen within 20 s")
