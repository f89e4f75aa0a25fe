"""The process that reads and compiles the model, locks itself down, and forks the workers that answer requests.

`open_template` is the factory that `openinfer.worker` calls in a fresh child. Forking from a loaded, locked process is what makes a worker
replaceable within milliseconds. The parent learns the signature alone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from openinfer.codegen import build, object_cache
from openinfer.errors import SandboxError
from openinfer.ir.graph import ITEM_BYTES
from openinfer.runtime import entry_native
from openinfer.runtime.signature import probes
from openinfer.sandbox import kernel, lockdown, native, ring
from openinfer.sandbox.inside import Inside, Target
from openinfer.sandbox.ring import GO, GO_WAITERS, READY, READY_WAITERS

WALLS = ("core-dumps", "limits", "seccomp")  # of a worker, a bit each in READY

_LOOK_AGAIN_NS = 10_000_000_000


def open_template(ring_fd: int, strict: bool, spin_us: int, memory_bytes: int, lock: str) -> Template:
    """The factory. `lock`: "full"; "keep-root", to test the walls without the change of user; "none", to show what an attack does without
    any.
    """
    return Template(ring_fd, strict, spin_us, memory_bytes, lock)


class Template:
    """Loads once, forks many times."""

    def __init__(self, ring_fd: int, strict: bool, spin_us: int, memory_bytes: int, lock: str) -> None:
        self._ring_fd = ring_fd
        self._ring = ring.attach(ring_fd)
        self._strict, self._spin_us, self._memory_bytes, self._lock = strict, spin_us, memory_bytes, lock
        self._target: Target | None = None
        self._programs = lockdown.programs()
        native.wait()  # linking looks for libm by way of programs, which the first wall forbids

    def load(self, target: str, spec: Mapping[str, Any], model: Any = None, user: int = -1, shapes: Sequence[Any] = ()) -> dict[str, Any]:
        """Make the object to serve with the function `target` ("module:function"), then lock down; the signature and what was given up.

        `model` (bytes as an array) is given to it beside `spec`. `user` ≥ 0 becomes that user first. `shapes`: of inputs to compile for,
        beside those that the model names.
        """
        module, _, name = target.partition(":")
        factory = getattr(importlib.import_module(module), name)
        if self._lock != "none":
            object_cache.folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        if user >= 0:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        if self._lock != "none":
            lockdown.before_loading(self._programs.loader, self._strict, object_cache.folder())
        values = dict(spec) if model is None else {**spec, "model": model.tobytes()}
        self._target = factory(**values)
        self._inside = Inside(self._ring, self._target, self._spin_us)
        self._warm_up(shapes)
        build.seal()
        gc.collect()
        gc.freeze()
        self._limit = lockdown.address_space_bytes() + self._memory_bytes
        os.close(self._ring_fd)
        given_up = (
            []
            if self._lock == "none"
            else lockdown.lock_template(self._programs.template, self._strict, "keep" if self._lock == "keep-root" else "drop")
        )
        signature = [
            [[s.name, s.dtype, None if s.shape is None else list(s.shape)] for s in group]
            for group in (self._target.inputs, self._target.outputs)
        ]
        return {"inputs": signature[0], "outputs": signature[1], "given_up": given_up}

    def fork(self, serial: int) -> dict[str, Any]:
        """Start a worker, which answers once the ring says that it is the turn of `serial`; its process id."""
        template = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == template:  # it may have ended already
                    self._become_worker(serial)
            finally:
                os._exit(1)
        return {"pid": child}

    def reap(self, pid: int) -> dict[str, Any]:
        """How a worker that has ended did: its wait status. Until this call its process id stays its own."""
        return {"ended": os.waitpid(pid, 0)[1]}

    def _become_worker(self, serial: int) -> None:
        start_threads = getattr(self._target, "start_threads", None)
        if start_threads is not None:
            start_threads()
        walls = [] if self._lock == "none" else lockdown.lock_worker(self._programs.worker, self._strict, self._limit)
        ready = 1 | sum(2 << WALLS.index(wall) for wall in walls)
        wait, words = native.wait(), self._ring.words
        go, waiters = self._ring.word(GO), self._ring.word(GO_WAITERS)
        native.post()(self._ring.word(READY), ready, self._ring.word(READY_WAITERS))
        while (turn := int(words[GO])) != serial:
            wait(go, turn, waiters, 0, 0, _LOOK_AGAIN_NS)
        self._inside.serve()

    def _warm_up(self, shapes: Sequence[Any]) -> None:
        """Answer one small request, so that whatever is imported or made late is there before the files are gone."""
        target = self._target
        if target is None:
            raise SandboxError("nothing is loaded")
        for signature in (*target.inputs, *target.outputs):
            if signature.dtype not in ITEM_BYTES:
                raise SandboxError(
                    f"{signature.name!r} is {signature.dtype}, which cannot cross into a sandbox; allowed: numbers, or sandbox.mode = 'off'"
                )
        entry_native.library()  # whatever the first request needs
        named = [*probes(target.inputs)[:1], *probes(target.inputs, equal=True)[:1]]  # sizes named apart may have to be equal
        wanted = [*([kind.shape for kind in types] for types in named), *shapes]
        for group in wanted:
            zeros = {s.name: np.zeros(shape, s.dtype) for s, shape in zip(target.inputs, group, strict=True)}
            with contextlib.suppress(Exception):  # zeros need not be a sensible request
                target.run(zeros)
                sys.stdout.flush()
