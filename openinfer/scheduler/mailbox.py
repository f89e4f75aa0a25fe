"""From other threads to the loop: one wake-up for all that has arrived, for a wake-up is a system call."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable


class Mailbox:
    """`post(thunk)` from any thread runs it on the loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: collections.deque[Callable[[], None]] = collections.deque()
        self._signalled = False

    def post(self, thunk: Callable[[], None], quiet: bool = False) -> None:
        """Run `thunk` on the loop soon; `quiet`: once the loop looks, or is woken. A loop that is closed drops it: nobody can wait for it
        any more.
        """
        self._posted.append(thunk)
        if not quiet:
            self.wake()

    def wake(self) -> None:
        """Make the loop look."""
        if not self._signalled:
            self._signalled = True
            try:
                self._loop.call_soon_threadsafe(self.drain)
            except RuntimeError:
                self._posted.clear()

    def drain(self) -> None:
        """Run all that was posted; on the loop's thread."""
        # Lowered first: what is posted from here on either is seen below or signals again.
        self._signalled = False
        while self._posted:
            self._posted.popleft()()
