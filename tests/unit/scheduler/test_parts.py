"""The parts that decide: queue order, predicted times, pace, mode."""

from __future__ import annotations

import functools
import random

import pytest

from openinfer.errors import OverloadError
from openinfer.scheduler import callables
from openinfer.scheduler.callables import KEPT, LONGEST_PROBE_NS, WAIT_NS, Callables, Callee
from openinfer.scheduler.deadline_queue import DeadlineQueue
from openinfer.scheduler.doubt import TRY_AFTER_NS, Doubt
from openinfer.scheduler.durations import Durations, padded
from openinfer.scheduler.lane import Lane, Shape
from openinfer.scheduler.pace import HALF_LIFE_NS, Pace
from openinfer.scheduler.request import NEVER, Request, key_of


@pytest.fixture
def draw():
    seed = random.SystemRandom().randrange(2**32)
    print(f"{seed=}")
    return random.Random(seed)


def request(lane: Lane, number: int, due: int = NEVER, priority: int = 0) -> Request:
    return Request({}, Shape(lane, 1), key_of(priority, due, number), 0, None)


def test_the_queue_serves_in_the_order_of_a_sort(draw):
    lanes = [Lane(0, None, None) for _ in range(3)]
    queue = DeadlineQueue(500)
    waiting = []
    for number in range(300):
        made = request(draw.choice(lanes), number, draw.choice([NEVER, draw.randrange(100)]), draw.randrange(3))
        assert queue.position(made.key) == sum(other.key < made.key for other in waiting)
        queue.push(made)
        waiting.append(made)
        if draw.random() < 0.2:
            queue.discard(waiting.pop(draw.randrange(len(waiting))))
    waiting.sort(key=lambda made: made.key)
    assert list(queue) == waiting
    while queue:
        head = queue.head()
        assert head is waiting[0]
        taken = queue.take(head.lane, 4)
        assert taken == [made for made in waiting if made.lane is head.lane][:4]
        waiting = [made for made in waiting if made not in taken]
    assert not waiting and all(lane.waiting == 0 for lane in lanes)


def test_the_queue_is_bounded_and_forgets_what_is_discarded():
    lane, queue = Lane(0, None, None), DeadlineQueue(2)
    first, second = request(lane, 0), request(lane, 1)
    queue.push(first)
    queue.push(second)
    with pytest.raises(OverloadError, match="2 requests wait; allowed"):
        queue.push(request(lane, 2))
    queue.discard(first)
    queue.discard(first)
    queue.push(request(lane, 3))
    assert len(queue) == 2 and queue.head() is second


def test_padding_is_bounded_and_so_are_the_sizes():
    sizes = {padded(rows) for rows in range(1, 4097)}
    assert all(rows <= padded(rows) <= rows * 9 / 8 for rows in range(1, 4097))
    assert all(padded(size) == size for size in sizes) and len(sizes) <= 16 + 8 * 8


def test_durations_learn_and_scale():
    durations = Durations(7)
    assert durations.predict(4) == 7
    durations.observe(4, 1000)
    assert durations.predict(4) == 1000 and durations.predict(8) == 2000 and durations.predict(1) == 1000
    for _ in range(100):
        durations.observe(4, 500)
    assert 500 <= durations.predict(4) < 510


def test_pace_is_the_throughput_under_a_backlog():
    pace = Pace()
    assert pace.request_ns(123) == 123
    now = 0
    for _ in range(100):
        pace.started(now, 8, True)
        now += 4000
    assert pace.request_ns(0) == 500
    pace.started(now + 10**9, 8, False)  # still one interval of the backlog
    before = pace.request_ns(0)
    pace.started(now + 9 * 10**9, 8, True)  # idle time says nothing
    assert pace.request_ns(0) == before


def test_the_margin_is_the_latest_stall_and_fades():
    pace = Pace()
    pace.answered(1000, 900)
    assert pace.margin_ns(900) == 0
    pace.answered(1000, 4000)
    pace.answered(4000, 5000)  # less late: the larger one still counts
    assert 2900 < pace.margin_ns(5000) <= 3000
    assert pace.margin_ns(4000 + HALF_LIFE_NS) == 1500
    pace.answered(4000, 4000 + HALF_LIFE_NS)
    assert pace.margin_ns(4000 + HALF_LIFE_NS) == HALF_LIFE_NS
    assert pace.margin_ns(10**13) == 0


class Clocks:
    """The time, and the time that the thread used, as a test moves them."""

    def __init__(self, monkeypatch):
        self.now = self.used = 0
        monkeypatch.setattr(callables, "clock", lambda: self.now)
        monkeypatch.setattr(callables, "used", lambda: self.used)

    def spend(self, parts):
        """A blocking callable that computes and waits."""
        computes, waits = parts
        self.now += computes + waits
        self.used += computes


@pytest.fixture
def clocks(monkeypatch):
    return Clocks(monkeypatch)


def on_the_pool(clocks, callee, parts, calls):
    """How many of `calls` calls left the loop."""
    left = 0
    for _ in range(calls):
        if callee.leaves(clocks.now):
            clocks.spend(parts)
            callee.observe(sum(parts))
            left += 1
        else:
            callee.run(clocks.spend, parts)
    return left


WAITS, COMPUTES = (200_000, 1_000_000), (1_000_000, 200_000)


def test_auto_sends_to_the_pool_what_waits_and_keeps_what_computes(clocks):
    callee = Callee("auto")
    assert on_the_pool(clocks, callee, COMPUTES, 1000) == 0 and callee.moves == 0
    assert on_the_pool(clocks, callee, WAITS, 1000) > 950
    assert callee.pooled and callee.moves == 1 and callee.waited_ns > callee.used_ns
    on_the_pool(clocks, callee, COMPUTES, 3000)  # seen by probes alone
    assert not callee.pooled and callee.moves == 2


def test_a_wait_below_a_hop_stays_on_the_loop(clocks):
    callee = Callee("auto")
    assert on_the_pool(clocks, callee, (WAIT_NS // 8, WAIT_NS), 1000) == 0


def test_between_the_thresholds_a_callable_stays_where_it_is(clocks):
    callee, between = Callee("auto"), (1_000_000, 650_000)
    assert on_the_pool(clocks, callee, between, 500) == 0
    on_the_pool(clocks, callee, WAITS, 500)
    assert on_the_pool(clocks, callee, between, 5000) > 4900 and callee.moves == 1


def test_probes_take_a_hundredth_of_the_time_and_never_long(clocks):
    callee = Callee("auto")
    callee.run(clocks.spend, WAITS)
    begin, probed = clocks.now, 0
    for _ in range(5000):
        if callee.leaves(clocks.now):
            clocks.spend(WAITS)
            callee.observe(sum(WAITS))
        else:
            callee.run(clocks.spend, WAITS)
            probed += sum(WAITS)
    assert 0 < probed <= 0.011 * (clocks.now - begin)
    slow = Callee("auto")
    slow.run(clocks.spend, (0, 2 * LONGEST_PROBE_NS))
    assert on_the_pool(clocks, slow, (0, 2 * LONGEST_PROBE_NS), 1000) == 1000


@pytest.mark.parametrize("mode", ["inline", "async", "hybrid"])
def test_a_fixed_mode_stays(clocks, mode):
    callee = Callee(mode)
    assert on_the_pool(clocks, callee, WAITS, 100) == on_the_pool(clocks, callee, COMPUTES, 100) == (100 if mode == "hybrid" else 0)


def test_one_slow_call_is_forgotten_quickly(clocks):
    callee = Callee("async")
    callee.run(clocks.spend, (0, 1_000_000_000))
    for _ in range(10):
        callee.run(clocks.spend, (0, 1_000_000))
    assert callee.took_ns < 3_000_000


def test_a_partial_is_what_it_calls(clocks):
    def slow(seconds, argument):
        return seconds

    def quick(seconds, argument):
        return argument

    known = Callables("async")
    assert known.of(functools.partial(functools.partial(slow, 1))) is known.of(functools.partial(slow, 2)) is known.of(slow)
    assert known.of(functools.partial(quick, 1)) is not known.of(slow)


def test_a_prediction_that_only_refuses_is_tried_again():
    doubt, far = Doubt(), 10 * TRY_AFTER_NS
    tried = [doubt.lets_through(now, far) for now in range(1, 4 * TRY_AFTER_NS, TRY_AFTER_NS // 10)]
    assert not any(tried[:10]) and sum(tried) == 3
    doubt.settle()
    assert not doubt.lets_through(5 * TRY_AFTER_NS, far)
    assert not doubt.lets_through(far + 1, far)


def test_callables_are_known_by_their_code_and_the_least_known_are_forgotten(clocks):
    known = Callables("auto")
    made = [known.of(lambda x, n=n: n) for n in range(3)]
    assert made[0] is made[1] is made[2]
    made[0].run(clocks.spend, WAITS)
    assert known.mode == "hybrid" and known.moves == 1
    for number in range(KEPT):
        known.of(eval(f"lambda x: {number}"))
    assert known.mode == "async" and known.moves == 1
