"""Admission: a request whose deadline, or that of one accepted before, would be missed is refused at once, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from openinfer.errors import DeadlineError
from openinfer.scheduler.batch import Batch
from openinfer.scheduler.deadline_queue import DeadlineQueue
from openinfer.scheduler.lane import Lane
from openinfer.scheduler.pace import Pace
from openinfer.scheduler.request import Key, time_left

RESERVE = 2  # times a predicted wait has to fit into the time that a deadline allows
OVERLOAD_NS = 100_000_000  # since the last refusal


class Admission:
    """Predicts when a request would be answered: what waits before it at the pace of late, what runs now, and how late answers were."""

    def __init__(self, queue: DeadlineQueue, away: Sequence[Batch]) -> None:
        """`away`: the batches that are with the workers, oldest first."""
        self._queue, self._away = queue, away
        self.pace = Pace()
        self.refused = 0
        self._refused_at_ns = -OVERLOAD_NS

    def overloaded(self, now_ns: int) -> bool:
        """Whether a request was refused of late."""
        return now_ns - self._refused_at_ns < OVERLOAD_NS

    def admit(self, lane: Lane, rows: int, key: Key, now_ns: int, workers: int) -> int:
        """When the request is predicted to be answered; `DeadlineError` where that is too late for it, or for one behind it."""
        due = key[1]
        most = lane.most
        batch_ns = lane.durations.predict(most * rows if most > 1 else rows)
        one = self.pace.request_ns(batch_ns // most)
        ahead = self._queue.position(key)
        away = self._away
        # What runs now has to end first, and a batch ends as a whole.
        predicted = now_ns + ahead * one + batch_ns + (batch_ns if len(away) >= workers else 0)
        # The pace may halve while it waits; and what is late now makes later what comes after it.
        oldest = away[0].requests[0].predicted_ns if away else 0
        # A stall longer than a deadline cannot be allowed for: then the queue is kept short, not closed.
        margin = min(self.pace.margin_ns(now_ns), (due - now_ns) * 3 // 4)
        late = max(margin, now_ns - oldest if oldest else 0)
        expected = now_ns + RESERVE * (predicted - now_ns) + late
        if expected > due and not (self._idle(lane) and lane.doubt.lets_through(now_ns, due)):
            self.refuse(expected - now_ns, due - now_ns, now_ns)
        ends = expected
        for other in self._queue.behind(ahead):
            ends += RESERVE * one
            if ends > other.due_ns and other.key[0] == key[0]:
                self.refuse(expected - now_ns, due - now_ns, now_ns, "requests that were accepted before would miss theirs")
        return predicted

    def _idle(self, lane: Lane) -> bool:
        """Whether no call is under way or waits that would teach the lane how long it takes."""
        return not lane.waiting and all(batch.requests[0].lane is not lane for batch in self._away)

    def refuse(self, expected_ns: int, left_ns: int, now_ns: int, why: str = "") -> None:
        """Raise the `DeadlineError` of a request that is expected to be answered in `expected_ns`."""
        self.refused += 1
        self._refused_at_ns = now_ns
        reason = f": {why}" if why else ""
        raise DeadlineError(
            f"the answer is expected in {expected_ns / 1e6:.2f} ms, {time_left(left_ns)}{reason}; allow more time or send fewer requests"
        )
