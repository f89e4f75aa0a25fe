"""One way to run a child process: spawned (never forked), asked over a socket, timed out, paused, killed, restarted.

Thread safety: one thread at a time. The kernel ends a tied child when the *thread* that started it ends, so start workers from a thread
that outlives them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from openinfer.errors import WorkerError
from openinfer.worker.channel import ChannelClosed, receive, remaining_s, send

_TAIL_BYTES = 4000


class Worker:
    """A child process that holds the object made by `factory` ("module:function") from `spec` (JSON-able)."""

    _ready: bool
    _ended: str
    _startup_s: float

    def __init__(
        self,
        factory: str,
        spec: Mapping[str, Any],
        *,
        name: str = "worker",
        environment: Mapping[str, str] | None = None,
        start_timeout_s: float = 120.0,
        inherit: bool = True,
        pass_fds: Sequence[int] = (),
        tied: bool = True,
        reply_limit_bytes: int = 1 << 36,
    ) -> None:
        """`inherit=False` gives the child `environment` alone. `pass_fds` stay open in the child. A child that is not `tied` outlives the
        thread that started it, and ends when this object or its process does. Answers longer than `reply_limit_bytes` are malformed.
        """
        self.name = name
        self._factory, self._spec = factory, dict(spec)
        self._environment = {**(os.environ if inherit else {}), **(environment or {})}
        self._pass_fds, self._tied, self._reply_limit_bytes = tuple(pass_fds), tied, reply_limit_bytes
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    @property
    def pid(self) -> int:
        """The child's process id; `WorkerError` once it has been closed."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._process is not None and self._process.poll() is None

    def wait_ready(self) -> float:
        """Wait until the factory has returned; the seconds since the start. Starting is asynchronous, so that several can overlap."""
        if not self._ready:
            self._running()
            self._receive(self._started + self._start_timeout_s, self._start_timeout_s, "starting")
            self._ready = True
            self._startup_s = time.monotonic() - self._started
        return self._startup_s

    def call(self, method: str, timeout_s: float = 60.0, **values: Any) -> dict[str, Any]:
        """Call a method of the child's object: JSON-able values and arrays in, a dict of the same out.

        `WorkerError` where it raises, dies or takes longer than `timeout_s`, the way there and back included; after the last two the
        child is gone.
        """
        self.wait_ready()
        return self._ask({"_method": method, **values}, timeout_s, method)

    def pause(self) -> None:
        """Stop every thread of the child, so that nothing of it takes a core; `resume` lets it go on."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """End the child if it lives, and start a fresh one from the same factory."""
        self.kill()
        self._start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Let the child close its object and end; kill it where it does not. The second call does nothing."""
        if self.alive and self._ready:
            try:
                self.resume()
                self._ask({"_method": "_close"}, timeout_s, "closing")
                self._running().wait(timeout_s)
            except (WorkerError, subprocess.TimeoutExpired):
                self.kill()
        self._end("it was closed")

    def kill(self) -> None:
        """End the child at once."""
        self._end("it was ended")

    def _end(self, why: str) -> None:
        if self._process is not None:
            self._ended = why
            self._process.kill()
            self._process.wait()
            self._process = None
            self._connection.close()
            self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # Closed by `kill`: the child writes to it as long as it lives.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        # -P: a folder named openinfer where the caller stands must not hide the installed package.
        command = [sys.executable, "-P", "-m", "openinfer.worker.child", str(theirs.fileno()), str(os.getpid())]
        if not self._tied:
            command.append("untied")
        self._started = time.monotonic()
        self._ready, self._startup_s = False, 0.0
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno(), *self._pass_fds],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            env=self._environment,
            start_new_session=True,
        )
        theirs.close()
        self._connection = ours
        opening = {"_method": "_open", "factory": self._factory, "spec": self._spec, "path": [entry for entry in sys.path if entry]}
        self._send(opening, self._started + self._start_timeout_s, self._start_timeout_s, "starting")

    def _ask(self, message: dict[str, Any], timeout_s: float, doing: str) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        self._send(message, deadline, timeout_s, doing)
        return self._receive(deadline, timeout_s, doing)

    def _send(self, message: dict[str, Any], deadline: float, timeout_s: float, doing: str) -> None:
        self._running()
        self._connection.settimeout(remaining_s(deadline))
        try:
            send(self._connection, message)
        except TimeoutError:
            raise self._late(timeout_s, doing) from None
        except ChannelClosed:
            raise self._death(f"before {doing!r}") from None
        except BaseException:
            # Part of the message may be on its way (Ctrl-C, say): the child would read the next one as the rest of it.
            self._end(f"sending {doing!r} was interrupted")
            raise

    def _receive(self, deadline: float, timeout_s: float, doing: str) -> dict[str, Any]:
        try:
            reply = receive(self._connection, deadline, self._reply_limit_bytes)
        except TimeoutError:
            raise self._late(timeout_s, doing) from None
        except ChannelClosed:
            raise self._death(f"during {doing!r}") from None
        except ValueError as error:
            self._end(f"it sent a malformed answer to {doing!r}")
            raise WorkerError(f"{self.name} sent a malformed answer to {doing!r}: {error}") from None
        except BaseException:
            # The answer is still on its way (Ctrl-C, say): a later call would read it as its own.
            self._end(f"{doing!r} was interrupted")
            raise
        problem = reply.pop("_error", None)
        if problem is not None:
            kind, expected = reply.get("_type"), reply.get("_expected")
            raise WorkerError(str(problem) if expected else f"{self.name}: {doing!r} raised {kind}: {problem}", str(kind))
        return reply

    def _death(self, when: str) -> WorkerError:
        process = self._running()
        try:
            code = process.wait(5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        tail = self._tail()
        reason = f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        self._end(f"it died ({reason}) {when}")
        return WorkerError(f"{self.name} died ({reason}) {when}{tail}")

    def _late(self, timeout_s: float, doing: str) -> WorkerError:
        tail = self._tail()
        self._end(f"it did not answer {doing!r} within {timeout_s:g} s")
        return WorkerError(f"{self.name} did not answer {doing!r} within {timeout_s:g} s and was ended{tail}")

    def _tail(self) -> str:
        """The last line of what the child printed, for the error message."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _TAIL_BYTES))
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"; it last said: {lines[-1].strip()[:300]}" if lines else ""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise WorkerError(f"{self.name} is not running: {self._ended}; start it again")
        return self._process


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # the real-time signals between the first and the last have no name
        return str(number)
