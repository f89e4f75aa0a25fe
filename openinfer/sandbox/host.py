"""The child processes of one sandbox: the template, which holds the loaded model, and the worker forked from it.

What either says about itself is checked: a process id is used only once it is known to be a child of the template.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openinfer import errors
from openinfer.config import SandboxConfig
from openinfer.errors import OpenInferError, SandboxError, WorkerError
from openinfer.ir.graph import ITEM_BYTES, Signature
from openinfer.sandbox.messages import MAX_RANK
from openinfer.worker.process import Worker

_REPLY_LIMIT_BYTES = 4 << 20
_FORK_TIMEOUT_S = 30.0
_MAX_TENSORS, _MAX_NAME = 4096, 1024
# What a child needs of this process's environment; the rest, which may hold secrets, stays here.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HOME")
_ENVIRONMENT_PREFIXES = ("NUMBA_", "OPENINFER_")


@dataclasses.dataclass(frozen=True)
class Source:
    """What a worker serves: a function "module:function" with JSON-able arguments, and beside them the model's bytes where they are not in
    a file. `cache` is the folder for compiled objects. `user` ≥ 0 starts as that user, `lock` is explained in `template.open_template`.
    """

    target: str
    spec: Mapping[str, Any]
    cache: Path
    model: bytes | None = None
    user: int = -1
    lock: str = "full"


@dataclasses.dataclass(frozen=True)
class Description:
    """The signature, checked, and the protections of the template."""

    inputs: tuple[Signature, ...]
    outputs: tuple[Signature, ...]
    given_up: tuple[str, ...]


class Host:
    """Starts and ends the processes. One thread at a time."""

    def __init__(self, source: Source, knobs: SandboxConfig, ring_fd: int) -> None:
        self._source, self._knobs = source, knobs
        self._shapes: list[list[list[int]]] = []
        spec = {
            "ring_fd": ring_fd,
            "strict": knobs.mode == "strict",
            "spin_us": knobs.spin_us,
            "memory_bytes": knobs.memory_mb << 20,
            "lock": source.lock,
        }
        inherited = {k: v for k, v in os.environ.items() if k in _ENVIRONMENT or k.startswith(_ENVIRONMENT_PREFIXES)}
        inherited.pop("OPENINFER_CONFIG", None)
        single = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}  # a forked child has no use for their threads
        self._template = Worker(
            "openinfer.sandbox.template:open_template",
            spec,
            name="the sandbox",
            environment={**inherited, **single, "OPENINFER_CACHE": str(source.cache), "PYTHONDONTWRITEBYTECODE": "1"},
            start_timeout_s=float(knobs.load_timeout_s),
            inherit=False,
            pass_fds=(ring_fd,),
            tied=False,
            reply_limit_bytes=_REPLY_LIMIT_BYTES,
        )

    @property
    def pid(self) -> int:
        """The template's process id; `WorkerError` where there is none."""
        return self._template.pid

    def load(self) -> Description:
        """Have the template load the model and lock itself. Raises what loading raises, by its own class, or `SandboxError`."""
        source = self._source
        values: dict[str, Any] = {"target": source.target, "spec": dict(source.spec), "user": source.user, "shapes": self._shapes}
        if source.model is not None:
            values["model"] = np.frombuffer(source.model, np.uint8)
        try:
            reply = self._template.call("load", float(self._knobs.load_timeout_s), **values)
        except WorkerError as error:
            raise named_error(error.kind, str(error)) from None
        try:
            return _description(reply)
        except (TypeError, ValueError, KeyError) as error:
            raise SandboxError(f"the sandbox described the model in a malformed way: {_printable(str(error))}") from None

    def fork(self, serial: int) -> tuple[int, int]:
        """A new worker: a descriptor of its process, and its id. `WorkerError` if the template died."""
        pid = self._template.call("fork", _FORK_TIMEOUT_S, serial=serial).get("pid")
        if type(pid) is not int or pid < 2:
            raise WorkerError("the sandbox named no process")
        try:
            descriptor = os.pidfd_open(pid)
        except OSError as error:
            raise WorkerError(f"the sandbox named process {pid}: {error.strerror}") from None
        # Now the number cannot come to mean another process; a lying template must not make this one end a stranger.
        if _parent_of(pid) != self._template.pid:
            os.close(descriptor)
            raise WorkerError(f"the sandbox named process {pid}, which is not its child")
        return descriptor, pid

    def reap(self, pid: int) -> int:
        """How a worker that has ended did: its wait status. `WorkerError` if the template died."""
        ended = self._template.call("reap", _FORK_TIMEOUT_S, pid=pid).get("ended")
        return ended if type(ended) is int else 0

    def widen(self, shapes: Sequence[Sequence[int]]) -> None:
        """End the template; from the next load on the model is compiled for inputs of these shapes too."""
        self._shapes.append([list(shape) for shape in shapes])
        # By its number alone: another thread may be speaking with it, and learns of its end as of any other.
        with contextlib.suppress(WorkerError, ProcessLookupError):
            os.kill(self._template.pid, signal.SIGKILL)

    def restart(self) -> None:
        """A fresh template, to be loaded again."""
        self._template.restart()

    def close(self) -> None:
        """End the template; its worker ends with it."""
        self._template.kill()


def end(descriptor: int) -> None:
    """Kill the process of a pidfd; nothing where it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)


def has_ended(descriptor: int) -> bool:
    """Whether the process of a pidfd is gone."""
    ends = select.poll()  # not select(), which takes no descriptor above 1,023
    ends.register(descriptor, select.POLLIN)
    return bool(ends.poll(0))


def named_error(kind: str, text: str) -> OpenInferError:
    """The error that a child raised, by its own class where that is one of OpenInfer's."""
    found = getattr(errors, kind, None) if kind else None
    text = _printable(text)
    if isinstance(found, type) and issubclass(found, OpenInferError):
        return found(text)
    return SandboxError(text)


def _parent_of(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    return int(stat.rpartition(")")[2].split()[1])


def _description(reply: Mapping[str, Any]) -> Description:
    inputs, outputs = (tuple(_signature(*entry) for entry in _list(reply[name], _MAX_TENSORS)) for name in ("inputs", "outputs"))
    for group in (inputs, outputs):
        if len({signature.name for signature in group}) != len(group):
            raise ValueError("two tensors have one name")
    return Description(inputs, outputs, tuple(_text(entry) for entry in _list(reply["given_up"], 32)))


def _signature(name: Any, dtype: Any, shape: Any) -> Signature:
    if dtype not in ITEM_BYTES:
        raise ValueError("a tensor has an unknown type")
    if shape is None:
        return Signature(_text(name), dtype, None)
    sizes = _list(shape, MAX_RANK)
    if any(not (type(size) is str or (type(size) is int and 0 <= size < 1 << 40)) for size in sizes):
        raise ValueError("a tensor has a malformed shape")
    return Signature(_text(name), dtype, tuple(sizes))


def _list(value: Any, limit: int) -> list[Any]:
    if type(value) is not list or len(value) > limit:
        raise ValueError("a list is missing, or too long")
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > _MAX_NAME:
        raise ValueError("a name is missing, or too long")
    return value


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)[:1000]
