"""A prediction that refuses requests is not corrected by them, for only a call that is made teaches: so it is doubted, and tried again."""

from __future__ import annotations

TRY_AFTER_NS = 300_000_000


class Doubt:
    """Of one prediction: lets one request through for every 0.3 s in which it refused and no call was seen."""

    __slots__ = ("_since_ns",)

    def __init__(self) -> None:
        self._since_ns = 0

    def lets_through(self, now_ns: int, due_ns: int) -> bool:
        """Whether a request that the prediction would refuse is tried nevertheless; never one whose deadline has passed."""
        if now_ns > due_ns:
            return False
        if self._since_ns and now_ns - self._since_ns >= TRY_AFTER_NS:
            self._since_ns = now_ns
            return True
        self._since_ns = self._since_ns or now_ns
        return False

    def settle(self) -> None:
        """A call was seen: the prediction has learnt."""
        self._since_ns = 0
