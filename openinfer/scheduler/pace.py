"""How fast the queue drains, and how far that prediction was off: what admission reckons with."""

from __future__ import annotations

FADE_NS = 100_000_000  # the margin halves in this time without an answer
DEVIATIONS = 4  # as TCP's retransmission time-out: the mean and four mean deviations


class Pace:
    """Learns from the starts of batches: the time between two starts, while requests waited, over the requests of the first."""

    __slots__ = ("_count", "_deviation_ns", "_elapsed_ns", "_observed_ns", "_previous", "_started_ns")

    def __init__(self) -> None:
        self._elapsed_ns = 0.0
        self._count = 0.0
        self._previous = 0
        self._started_ns = 0
        self._deviation_ns = 0.0
        self._observed_ns = 0

    def started(self, now_ns: int, requests: int, more: bool) -> None:
        """A batch of so many requests starts; `more` tells whether others still wait."""
        if self._previous:
            self._elapsed_ns = self._elapsed_ns * 0.9 + (now_ns - self._started_ns)
            self._count = self._count * 0.9 + self._previous
        self._started_ns = now_ns
        self._previous = requests if more else 0

    def request_ns(self, otherwise_ns: int) -> int:
        """Time that one waiting request adds; `otherwise_ns` until it has been seen."""
        return int(self._elapsed_ns / self._count) if self._count else otherwise_ns

    def observe(self, predicted_ns: int, actual_ns: int) -> None:
        """Learn how late an answer was against its prediction; early ones let the margin shrink."""
        late = max(0, actual_ns - predicted_ns)
        self._deviation_ns = self.margin_ns(actual_ns) / DEVIATIONS
        self._observed_ns = actual_ns
        self._deviation_ns += (late - self._deviation_ns) * (0.25 if late > self._deviation_ns else 0.01)

    def margin_ns(self, now_ns: int) -> int:
        """What a prediction may be off by. It fades while nothing is observed: else one stall would have everything refused for ever."""
        halvings = min((now_ns - self._observed_ns) / FADE_NS, 60.0)
        return int(DEVIATIONS * self._deviation_ns * 0.5**halvings)
