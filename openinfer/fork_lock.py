"""A lock that a forked child finds free: the thread that held it in the parent does not exist there and could never release it."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager

_locks: weakref.WeakSet[ForkLock] = weakref.WeakSet()


class ForkLock:
    """Re-entrant. What it guards must be usable at any moment of a holder's work, for a fork may come at any moment."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _locks.add(self)

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """The lock of this process, for `with`: as `held`, a microsecond faster."""
        return self._lock

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock; a child that forks meanwhile, from this thread, leaves the block as the parent does."""
        with self._lock:
            yield


def _after_fork_in_child() -> None:
    for lock in list(_locks):
        lock._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
