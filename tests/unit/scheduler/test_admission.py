"""Admission: who is accepted follows from what waits, what runs and how late answers were; a refusal says when, and is remembered."""

from __future__ import annotations

import collections
import types

import pytest

from openinfer.errors import DeadlineError
from openinfer.scheduler import loop_load
from openinfer.scheduler.admission import OVERLOAD_NS, Admission
from openinfer.scheduler.deadline_queue import DeadlineQueue
from openinfer.scheduler.lane import Lane
from openinfer.scheduler.loop_load import INTERVAL_NS, LoopLoad
from openinfer.scheduler.request import Request, key_of

MS = 1_000_000


def waiting(queue, lane, key, now_ns=0):
    request = Request({}, types.SimpleNamespace(lane=lane, rows=1), key, now_ns, None)
    queue.push(request)
    return request


@pytest.fixture
def lane():
    """A lane whose calls take 10 ms."""
    return Lane(10 * MS)


def test_a_request_is_accepted_while_twice_the_wait_fits_its_deadline(lane):
    queue = DeadlineQueue(100)
    admission = Admission(queue, collections.deque())
    assert admission.admit(lane, 1, key_of(0, 20 * MS, 0), 0, 1) == 10 * MS
    with pytest.raises(DeadlineError, match=r"expected in 20\.00 ms, the deadline is in 19\.00 ms"):
        admission.admit(lane, 1, key_of(0, 19 * MS, 0), 0, 1)
    waiting(queue, lane, key_of(0, 15 * MS, 1))
    assert admission.admit(lane, 1, key_of(0, 40 * MS, 2), 0, 1) == 20 * MS
    with pytest.raises(DeadlineError):
        admission.admit(lane, 1, key_of(0, 39 * MS, 2), 0, 1)
    assert admission.refused == 2


def test_a_batch_that_runs_has_to_end_first(lane):
    away = collections.deque()
    admission = Admission(DeadlineQueue(100), away)
    away.append(types.SimpleNamespace(requests=[types.SimpleNamespace(predicted_ns=0)]))
    assert admission.admit(lane, 1, key_of(0, 40 * MS, 0), 0, 1) == 20 * MS
    assert admission.admit(lane, 1, key_of(0, 20 * MS, 0), 0, 2) == 10 * MS  # another worker is free


def test_late_answers_ask_for_more_time_but_never_close_the_queue(lane):
    admission = Admission(DeadlineQueue(100), collections.deque())
    admission.pace.answered(0, 10 * MS)
    with pytest.raises(DeadlineError):
        admission.admit(lane, 1, key_of(0, 35 * MS, 0), 10 * MS, 1)
    admission.admit(lane, 1, key_of(0, 41 * MS, 0), 10 * MS, 1)
    admission.pace.answered(0, 1000 * MS)
    admission.admit(lane, 1, key_of(0, 1100 * MS, 0), 1000 * MS, 1)


def test_a_refusal_counts_as_overload_for_a_while(lane):
    admission = Admission(DeadlineQueue(100), collections.deque())
    assert not admission.overloaded(0)
    with pytest.raises(DeadlineError):
        admission.admit(lane, 1, key_of(0, MS, 0), 0, 1)
    assert admission.overloaded(OVERLOAD_NS - 1) and not admission.overloaded(OVERLOAD_NS)


@pytest.mark.parametrize(("share", "busy"), [(0.4, False), (0.6, True)])
def test_a_loop_that_uses_half_a_processor_is_busy(share, busy, monkeypatch):
    used = [0]
    monkeypatch.setattr(loop_load.time, "thread_time_ns", lambda: used[0])
    load, now = LoopLoad(), 0
    for _ in range(3):
        now += INTERVAL_NS + 1
        used[0] += int(share * (INTERVAL_NS + 1))
        assert load.look(now) is busy
        used[0] += 10 * INTERVAL_NS
        assert load.look(now + INTERVAL_NS) is busy  # not yet time to look again
        used[0] -= 10 * INTERVAL_NS
