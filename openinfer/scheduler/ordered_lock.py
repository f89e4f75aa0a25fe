"""Locks that know their order: a cycle in it is named when the second order is first taken, before two threads ever wait for each other."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from openinfer.errors import LockOrderError


class LockOrder:
    """Which lock was ever taken while which other was held. Names stand for locks, so that locks of one kind share their rules."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._after: dict[str, dict[str, str]] = {}
        self._held = threading.local()

    def held(self) -> list[str]:
        """Names of the locks that this thread holds, outermost first."""
        names: list[str] | None = getattr(self._held, "names", None)
        if names is None:
            names = self._held.names = []
        return names

    def taking(self, name: str) -> None:
        """This thread is about to take a lock; `LockOrderError` where it holds it, or some thread has taken these in the other order."""
        for outer in self.held():
            with self._guard:
                path = self._path(name, outer)
                if path is None:
                    self._after.setdefault(outer, {}).setdefault(name, threading.current_thread().name)
                    continue
            if outer == name:
                raise LockOrderError(f"{name} is held by this thread and would be taken again; release it first")
            other = self._after[path[0]][path[1]]
            raise LockOrderError(
                f"thread {threading.current_thread().name!r} takes {outer} -> {name}, thread {other!r} took {' -> '.join(path)}; "
                "allowed: one order for all threads; take them in the same order everywhere"
            )

    def _path(self, start: str, goal: str) -> list[str] | None:
        """Locks from `start` to `goal`, each taken while the one before was held."""
        pending, seen = [[start]], {start}
        while pending:
            path = pending.pop()
            if path[-1] == goal:
                return path
            for name in self._after.get(path[-1], {}):
                if name not in seen:
                    seen.add(name)
                    pending.append([*path, name])
        return None


class OrderedLock:
    """A lock, not re-entrant, that counts how long it was waited for (`waited_ns`). With an `order`, every acquisition is checked first."""

    def __init__(self, name: str, order: LockOrder | None = None) -> None:
        self.name = name
        self.waited_ns = 0
        self.contended = 0
        self._order = order
        self._lock = threading.Lock()

    def __enter__(self) -> OrderedLock:
        if self._order is not None:
            self._order.taking(self.name)
        if not self._lock.acquire(blocking=False):
            begin = time.perf_counter_ns()
            self._lock.acquire()
            self.waited_ns += time.perf_counter_ns() - begin
            self.contended += 1
        if self._order is not None:
            self._order.held().append(self.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._order is not None:
            self._order.held().remove(self.name)
        self._lock.release()
