"""How fast the queue drains, and how late answers came against their prediction: what admission reckons with."""

from __future__ import annotations

HALF_LIFE_NS = 2_000_000_000  # of what is remembered of a late answer: collections of garbage stall the loop about once a second
SHORT, LONG = 0.9, 0.99  # weights of the averages over some ten and some hundred batches


class Pace:
    """Learns from the starts of batches: the time between two starts, while requests waited, over the requests of the first."""

    __slots__ = ("_late_at_ns", "_late_ns", "_long", "_previous", "_short", "_started_ns")

    def __init__(self) -> None:
        self._short = self._long = (0.0, 0.0)  # time and requests, both fading
        self._previous = 0
        self._started_ns = 0
        self._late_ns = 0
        self._late_at_ns = 0

    def started(self, now_ns: int, requests: int, more: bool) -> None:
        """A batch of so many requests starts; `more` tells whether others still wait."""
        if self._previous:
            spent, served = now_ns - self._started_ns, self._previous
            self._short = self._short[0] * SHORT + spent, self._short[1] * SHORT + served
            self._long = self._long[0] * LONG + spent, self._long[1] * LONG + served
        self._started_ns = now_ns
        self._previous = requests if more else 0

    def request_ns(self, otherwise_ns: int) -> int:
        """Time that one waiting request adds, of late or on the whole, whichever is longer; `otherwise_ns` until it has been seen."""
        if not self._short[1]:
            return otherwise_ns
        return int(max(self._short[0] / self._short[1], self._long[0] / self._long[1]))

    def answered(self, predicted_ns: int, now_ns: int) -> None:
        """An answer that was predicted for `predicted_ns` is there."""
        if now_ns - predicted_ns > self.margin_ns(now_ns):
            self._late_ns, self._late_at_ns = now_ns - predicted_ns, now_ns

    def margin_ns(self, now_ns: int) -> int:
        """By how much answers were late of late: the envelope of their lateness, which halves every 2 s.

        A mean would not do: lateness comes in stalls that hit every request in the queue, and 999 of 1,000 have to be in time.
        """
        if not self._late_ns:
            return 0
        return int(self._late_ns * 0.5 ** min((now_ns - self._late_at_ns) / HALF_LIFE_NS, 60.0))
