"""How long a call of so many rows takes, learnt from the calls themselves."""

from __future__ import annotations

EXACT_ROWS = 16


def padded(rows: int) -> int:
    """The rows that a joined call is made for: exact up to 16, above that the next of eight sizes an octave, so at most 1/8 is padding.

    It bounds how many sizes have to be bound.
    """
    if rows <= EXACT_ROWS:
        return rows
    step = 1 << (rows - 1).bit_length() - 4
    return -(-rows // step) * step


class Durations:
    """Nanoseconds by rows. A size that was never seen is scaled from its nearest neighbour; `first_ns` stands in for the first one: 0
    where it is not known.
    """

    __slots__ = ("_first_ns", "_ns")

    def __init__(self, first_ns: int) -> None:
        self._first_ns = first_ns
        self._ns: dict[int, int] = {}

    @property
    def known(self) -> bool:
        """Whether there is anything to predict from."""
        return bool(self._first_ns or self._ns)

    def observe(self, rows: int, ns: int) -> None:
        """Learn from one call. Falls faster than it rises: what disturbs a call only adds to it."""
        rows = padded(rows)
        known = self._ns.get(rows)
        if known is None:
            self._ns[rows] = ns
        else:
            self._ns[rows] = known + (ns - known >> (1 if ns < known else 3))

    def predict(self, rows: int) -> int:
        """Expected ns of a call of so many rows."""
        rows = padded(rows)
        known = self._ns.get(rows)
        if known is not None:
            return known
        if not self._ns:
            return self._first_ns
        near = min(self._ns, key=lambda size: abs(size - rows))
        return max(self._ns[near], self._ns[near] * rows // max(near, 1)) if rows > near else self._ns[near]
