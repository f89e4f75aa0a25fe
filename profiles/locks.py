"""Which locks are waited for. While watched, `threading.Lock` and `threading.RLock` make locks that time their contended acquisitions; the
engine's own locks are watched too, those that exist already among them. An uncontended acquisition costs about 0.2 µs more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import linecache
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from openinfer import fork_lock

SKIPPED = ("threading.py", "fork_lock.py", "locks.py", "queue.py")


@dataclasses.dataclass
class LockWaits:
    """All locks that one line of code made. `waited_ns` over all threads."""

    name: str
    acquired: int = 0
    contended: int = 0
    waited_ns: int = 0
    longest_ns: int = 0


class WatchedLock:
    """A lock or re-entrant lock that behaves as the one it holds and counts into `waits`."""

    def __init__(self, inner: Any, waits: LockWaits) -> None:
        self._inner, self._waits = inner, waits

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As `threading.Lock.acquire`."""
        waits = self._waits
        waits.acquired += 1
        if self._inner.acquire(False):
            return True
        if not blocking:
            return False
        begin = time.perf_counter_ns()
        taken: bool = self._inner.acquire(True, timeout)
        passed = time.perf_counter_ns() - begin
        waits.contended += 1
        waits.waited_ns += passed
        waits.longest_ns = max(waits.longest_ns, passed)
        return taken

    def release(self) -> None:
        """As `threading.Lock.release`."""
        self._inner.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self._inner.release()

    def __getattr__(self, name: str) -> Any:
        """What conditions ask of a lock, and `locked`."""
        return getattr(self._inner, name)


class Locks:
    """The waits seen so far, by the line that made the lock."""

    def __init__(self) -> None:
        self._waits: dict[str, LockWaits] = {}

    @property
    def waits(self) -> list[LockWaits]:
        """Waited for longest first."""
        return sorted(self._waits.values(), key=lambda waits: -waits.waited_ns)

    def watched(self, inner: Any, name: str) -> WatchedLock:
        """`inner` under a name; locks of one name are counted together."""
        return WatchedLock(inner, self._waits.setdefault(name, LockWaits(name)))

    @contextlib.contextmanager
    def watch(self) -> Iterator[Locks]:
        """Watch the locks that are made meanwhile, and the engine's. They stay watched; the factories are put back."""
        known = list(fork_lock._locks)
        owners = _owners(known) if known else {}
        for lock in known:
            with lock.held():
                if not isinstance(lock._lock, WatchedLock):
                    lock._lock = self.watched(lock._lock, owners.get(id(lock), "a lock of the engine"))  # type: ignore[assignment]  # behaves as one
        factories = threading.Lock, threading.RLock

        def maker(factory: Callable[[], Any]) -> Callable[[], Any]:
            return lambda: self.watched(factory(), _place())

        # A forked child makes its locks anew; it is not watched.
        setattr(threading, "Lock", maker(factories[0]))  # noqa: B010  # a type to the checker, replaced on purpose
        setattr(threading, "RLock", maker(factories[1]))  # noqa: B010
        try:
            yield self
        finally:
            setattr(threading, "Lock", factories[0])  # noqa: B010
            setattr(threading, "RLock", factories[1])  # noqa: B010
            for lock in list(fork_lock._locks):
                if isinstance(lock._lock, WatchedLock):
                    with lock.held():
                        lock._lock = lock._lock._inner


def _place() -> str:
    """`name (file:line)` of the code outside the lock modules that makes a lock; `name` is what it is assigned to."""
    frame = sys._getframe(2)
    while frame.f_back is not None and Path(frame.f_code.co_filename).name in SKIPPED:
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    found = re.match(r"\s*([\w.\[\]\"']+)\s*(?::[^=]+)?=[^=]", linecache.getline(file, line))
    return f"{found[1] if found else frame.f_code.co_name} ({Path(file).name}:{line})"


def _owners(locks: Sequence[Any]) -> dict[int, str]:
    """By lock: the object that holds it, as class or module and attribute. One pass over all objects, however many locks there are."""
    wanted, found = {id(lock) for lock in locks}, {}
    for holder in gc.get_referrers(*locks):
        values = holder if isinstance(holder, dict) else getattr(holder, "__dict__", None)
        if not isinstance(values, dict):
            continue
        owner = values.get("__name__", "") if isinstance(holder, dict) else type(holder).__name__
        found.update({id(value): f"{owner or 'object'}.{name}" for name, value in list(values.items()) if id(value) in wanted})
    return found
