"""The workers of one sandbox over one ring: the one that answers, and a spare, locked and waiting, that takes its place at once."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from openinfer.config import SandboxConfig
from openinfer.errors import OpenInferError, SandboxError, WorkerError
from openinfer.sandbox import native
from openinfer.sandbox.host import Description, Host, Source, end, has_ended
from openinfer.sandbox.ring import GO, GO_WAITERS, READY, READY_WAITERS, Ring
from openinfer.sandbox.template import WALLS

log = logging.getLogger("openinfer")

_READY_TIMEOUT_S = 10.0
_STARTS = 8  # whoever kills workers may kill one that is being locked


@dataclasses.dataclass(frozen=True)
class Child:
    """A worker: descriptor of its process, process id, the number that sets it to work, what it has given up."""

    descriptor: int
    pid: int
    serial: int
    walls: tuple[str, ...]


class Workers:
    """`active` answers requests, `spare` waits. The caller sees to it that one thread at a time changes them; `descriptors` and
    `end_active` may be called at any time.
    """

    def __init__(self, source: Source, knobs: SandboxConfig, shared: Ring, ring_fd: int) -> None:
        self._knobs, self._ring = knobs, shared
        self._wait, self._post = native.wait(), native.post()
        self._serials = itertools.count(1)
        self._may_restock = knobs.spare
        self._outdated = False
        self.active: Child | None = None
        self.spare: Child | None = None
        self._host = Host(source, knobs, ring_fd)
        try:
            self.description: Description = self._host.load()
            self.succeed()
        except BaseException:
            self.close()
            raise

    def descriptors(self) -> list[int]:
        """Of the processes to watch."""
        return [child.descriptor for child in (self.active, self.spare) if child is not None]

    def succeed(self) -> None:
        """Set the spare to work, or a new worker where there is none. `SandboxError` where none can be started."""
        child, self.spare = self.spare, None
        if child is not None and (self._outdated or has_ended(child.descriptor)):
            end(child.descriptor)
            self.forget(child)
            child = None
        if self._outdated:
            self._outdated = False
            self._reload()
        self.active = child or self._start()
        self._may_restock = self._knobs.spare
        self._post(self._ring.word(GO), self.active.serial, self._ring.word(GO_WAITERS))

    def restock(self) -> None:
        """Start a spare where there is none. One that cannot be started is tried again after the next replacement."""
        if self.spare is not None or not self._may_restock or self.active is None:
            return
        try:
            self.spare = self._start(fresh_template=False)
        except OpenInferError as error:
            self._may_restock = False
            log.warning("the sandbox has no spare worker: %s", error)

    def lost_spare(self) -> bool:
        """Whether the spare has ended; it is forgotten then."""
        if self.spare is None or not has_ended(self.spare.descriptor):
            return False
        self.forget(self.spare)
        self.spare = None
        return True

    def retire(self) -> Child | None:
        """Take the worker that has ended out of work; `forget` it afterwards."""
        child, self.active = self.active, None
        return child

    def forget(self, child: Child | None) -> int | None:
        """Let go of a worker that has ended; its wait status, None where the template cannot tell."""
        if child is None:
            return None
        os.close(child.descriptor)
        try:
            return self._host.reap(child.pid)
        except WorkerError:
            return None

    def widen(self, shapes: Sequence[Sequence[int]]) -> None:
        """End the template and its workers, the spare included; the next template also compiles for these shapes."""
        self._outdated = True
        self._host.widen(shapes)
        self.end_active()

    def end_active(self) -> None:
        """Kill the worker that answers."""
        child = self.active
        if child is not None:
            end(child.descriptor)

    def close(self) -> None:
        """End all processes."""
        for child in (self.active, self.spare):
            if child is not None:
                end(child.descriptor)
                os.close(child.descriptor)
        self.active = self.spare = None
        self._host.close()

    def _start(self, fresh_template: bool = True) -> Child:
        for _ in range(_STARTS):
            serial = next(self._serials)
            self._ring.words[READY] = 0
            try:
                descriptor, pid = self._host.fork(serial)
            except WorkerError as error:
                if not fresh_template:
                    raise
                log.warning("the sandbox's template ended (%s); the model is loaded again", error)
                self._reload()
                descriptor, pid = self._host.fork(serial)
            walls = self._locked(descriptor, pid)
            if walls is not None:
                return Child(descriptor, pid, serial, walls)
            self.forget(Child(descriptor, pid, serial, ()))
        raise SandboxError(f"{_STARTS} workers of the sandbox ended before they were locked")

    def _reload(self) -> None:
        self._host.restart()
        found = self._host.load()
        if (found.inputs, found.outputs) != (self.description.inputs, self.description.outputs):
            raise SandboxError("the model has changed since it was loaded: its signature is another one")

    def _locked(self, descriptor: int, pid: int) -> tuple[str, ...] | None:
        """Wait until a worker is locked: what it gave up; None where it ended instead, or took too long and was ended."""
        until = time.monotonic() + _READY_TIMEOUT_S
        spin_ns = self._knobs.spin_us * 1000
        while self._wait(self._ring.word(READY), 0, self._ring.word(READY_WAITERS), 0, spin_ns, 10_000_000):
            if has_ended(descriptor) or time.monotonic() > until:
                end(descriptor)
                return None
        ready = int(self._ring.words[READY])
        walls = tuple(wall for bit, wall in enumerate(WALLS) if ready & (2 << bit))
        if self._knobs.mode == "strict":
            absent = [wall for wall in WALLS if wall not in walls] or _contradicted(pid, self._host.pid)
            if absent:
                end(descriptor)
                raise SandboxError(
                    f"the sandbox's worker has not given up: {', '.join(absent)}; sandbox.mode = 'strict' needs all: use a kernel that has "
                    "them, or mode = 'process', which takes what there is"
                )
        return walls


def _contradicted(pid: int, template: int) -> list[str]:
    """What the kernel itself says that a worker has not given up; nothing where it does not say."""
    with contextlib.suppress(OSError):
        worker, parent = (
            dict(line.split(":\t", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines() if ":\t" in line)
            for number in (pid, template)
        )
        # A worker has the template's filters, and one more.
        filtered = int(worker.get("Seccomp_filters", "1")) > int(parent.get("Seccomp_filters", "0"))
        said = {"seccomp": filtered, "no-new-privileges": worker.get("NoNewPrivs", "1") == "1"}
        return [wall for wall, given_up in said.items() if not given_up]
    return []
