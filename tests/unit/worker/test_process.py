"""A worker answers, and every way of going wrong is one named error."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest

from openinfer.errors import WorkerError
from openinfer.worker.channel import receive
from openinfer.worker.process import Worker


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    with Worker("worker_targets:open_target", {"start": 5}, name="shared") as worker:
        yield worker


def test_values_and_arrays_cross(shared: Worker) -> None:
    before = shared.call("add", amount=0)["count"]
    assert shared.call("add", amount=2)["count"] == before + 2
    reply = shared.call("double", x=np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(reply["x"], np.arange(0, 12, 2, dtype=np.float32).reshape(2, 3))
    assert reply["x"].dtype == np.float32 and reply["empty"].shape == (0, 3)


def test_an_exception_is_told_and_the_child_lives_on(shared: Worker) -> None:
    with pytest.raises(WorkerError, match="shared: 'fail' raised RuntimeError: the reason"):
        shared.call("fail")
    assert shared.call("add", amount=0)["pid"] == shared.pid


def test_a_paused_child_answers_after_resume(shared: Worker) -> None:
    shared.call("add", amount=0)
    shared.pause()
    with open(f"/proc/{shared.pid}/stat") as file:
        os.waitid(os.P_PID, shared.pid, os.WSTOPPED | os.WNOWAIT)
        assert file.read().rsplit(")", 1)[1].split()[0] == "T"
    shared.resume()
    assert shared.call("add", amount=0)["pid"] == shared.pid


def test_death_hang_and_restart() -> None:
    with Worker("worker_targets:open_target", {}, name="frail") as worker:
        with pytest.raises(WorkerError, match=r"frail died \(signal SIGKILL\) during 'die'; it last said: last words"):
            worker.call("die")
        assert not worker.alive
        worker.restart()
        assert worker.call("add", amount=1)["count"] == 1
        with pytest.raises(WorkerError, match=r"did not answer 'hang' within 0\.05 s"):
            worker.call("hang", timeout_s=0.05)
        assert not worker.alive
        with pytest.raises(WorkerError, match=r"frail is not running: it did not answer 'hang' within 0\.05 s; start it again"):
            worker.call("add", amount=1)
        worker.restart()
        number = signal.SIGRTMIN + 3  # has no name
        with pytest.raises(WorkerError, match=rf"died \(signal {number}\) during 'die'"):
            worker.call("die", number=number)
    with pytest.raises(WorkerError, match=rf"not running: it died \(signal {number}\) during 'die'"):
        _ = worker.pid


def test_an_interrupted_request_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(connection: socket.socket, values: dict[str, Any]) -> None:
        connection.sendall(b"half a head")
        raise KeyboardInterrupt

    with Worker("worker_targets:open_target", {}, name="torn") as worker:
        worker.wait_ready()
        monkeypatch.setattr("openinfer.worker.process.send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.call("add", amount=1)
        assert not worker.alive
        with pytest.raises(WorkerError, match="torn is not running: sending 'add' was interrupted"):
            worker.call("add", amount=1)


def test_the_time_out_counts_for_the_whole_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trickle:
        """A byte every 0.9 s, for ever."""

        now = 100.0
        patience = 0.0

        def settimeout(self, seconds: float) -> None:
            self.patience = seconds

        def recv_into(self, view: memoryview) -> int:
            self.now += min(self.patience, 0.9)
            if self.patience < 0.9:
                raise TimeoutError
            return 1

    trickle = Trickle()
    monkeypatch.setattr("openinfer.worker.channel.time.monotonic", lambda: trickle.now)
    with pytest.raises(TimeoutError):
        receive(cast(socket.socket, trickle), deadline=104.0)
    assert trickle.now == pytest.approx(104.0)


@pytest.mark.parametrize(("factory", "message"), [("worker_targets:refuse", "not today"), ("no_such_module:x", "no_such_module")])
def test_a_factory_that_fails_is_named(factory: str, message: str) -> None:
    with Worker(factory, {}, name="unborn") as worker, pytest.raises(WorkerError, match=message):
        worker.wait_ready()


def test_children_die_with_their_parent() -> None:
    script = (
        "import os, signal, sys; sys.path[:0] = eval(sys.argv[1])\n"
        "from openinfer.worker.process import Worker\n"
        "worker = Worker('worker_targets:open_target', {}); worker.wait_ready()\n"
        "print(worker.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", script, repr([p for p in sys.path if p])], capture_output=True, timeout=60)
    child = int(parent.stdout)
    # The kernel signals the child while the parent ends; a process descriptor becomes readable when it has.
    try:
        handle = os.pidfd_open(child)
    except ProcessLookupError:
        return
    import select

    assert select.select([handle], [], [], 10)[0]
    os.close(handle)
