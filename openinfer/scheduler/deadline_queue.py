"""The one queue: bounded, by priority, then earliest deadline first, then first come, first served. Belongs to the loop's thread."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

from openinfer.errors import OverloadError
from openinfer.scheduler.lane import Lane
from openinfer.scheduler.request import Key, Request

_Entry = tuple[Key, Request]


class DeadlineQueue:
    """Requests that wait, in the order in which they are served. A sorted list: positions are known, inserting moves a few kB."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Request]:
        return (request for _, request in self.entries)

    def push(self, request: Request) -> None:
        """Add a request; `OverloadError` where the queue is full."""
        if len(self.entries) >= self._limit:
            raise OverloadError(
                f"{self._limit} requests wait; allowed: scheduler.queue_limit = {self._limit}; send fewer, or answer 'busy' and retry later"
            )
        entries = self.entries
        if not entries or entries[-1][0] < request.key:
            entries.append((request.key, request))
        else:
            bisect.insort(entries, (request.key, request))
        request.waiting = True
        request.lane.waiting += 1

    def discard(self, request: Request) -> None:
        """Forget a request that its caller no longer waits for; nothing where it has left the queue."""
        if request.waiting:
            del self.entries[self.position(request.key)]
            request.waiting = False
            request.lane.waiting -= 1

    def head(self) -> Request:
        """The request that is served next; there has to be one."""
        return self.entries[0][1]

    def take(self, lane: Lane, most: int) -> list[Request]:
        """Remove up to `most` requests of one lane, in order."""
        entries = self.entries
        if lane.waiting == len(entries):
            taken = [request for _, request in entries[:most]]
            del entries[:most]
        else:
            indices = [index for index, (_, request) in enumerate(entries) if request.lane is lane][:most]
            taken = [entries[index][1] for index in indices]
            for index in reversed(indices):
                del entries[index]
        for request in taken:
            request.waiting = False
        lane.waiting -= len(taken)
        return taken

    def oldest_ns(self, lane: Lane) -> int:
        """When the oldest request of a lane was queued."""
        return min(request.enqueued_ns for _, request in self.entries if request.lane is lane)

    def position(self, key: Key) -> int:
        """How many requests would be served before one with this key."""
        entries = self.entries
        if not entries or entries[-1][0] < key:
            return len(entries)
        return bisect.bisect_left(entries, key, key=_key)

    def behind(self, position: int) -> Sequence[Request]:
        """The requests from this position on."""
        return [request for _, request in self.entries[position:]]


def _key(entry: _Entry) -> Key:
    return entry[0]
