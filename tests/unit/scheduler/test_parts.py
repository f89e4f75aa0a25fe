"""The parts that decide: queue order, predicted times, pace, mode."""

from __future__ import annotations

import random

import pytest

from openinfer.errors import OverloadError
from openinfer.scheduler.deadline_queue import DeadlineQueue
from openinfer.scheduler.durations import Durations, padded
from openinfer.scheduler.lane import Lane, Shape
from openinfer.scheduler.mode import FEWEST, HOP_NS, ModeChooser
from openinfer.scheduler.pace import HALF_LIFE_NS, Pace
from openinfer.scheduler.request import NEVER, Request


@pytest.fixture
def draw():
    seed = random.SystemRandom().randrange(2**32)
    print(f"{seed=}")
    return random.Random(seed)


def request(lane: Lane, number: int, due: int = NEVER, priority: int = 0) -> Request:
    return Request({}, Shape(lane, 1), due, priority, number, None)


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


def test_auto_follows_the_traffic_with_hysteresis(draw):
    chooser = ModeChooser("auto")

    def traffic(share: float, tasks: int = 2000) -> str:
        for _ in range(tasks):
            chooser.observe(2 * HOP_NS if draw.random() < share else 0)
        return chooser.mode

    assert traffic(0.05) == "async"
    assert traffic(0.60) == "hybrid"
    assert chooser.switches == 1
    assert traffic(0.02) == "async"
    assert chooser.switches == 2


def test_tasks_counted_by_number_weigh_as_if_they_were_shown(draw):
    one, other = ModeChooser("auto"), ModeChooser("auto")
    for _ in range(300):
        blocks, plain = draw.random() < 0.5, draw.randrange(4)
        for _ in range(plain):
            one.observe(0)
        other.plain += plain
        for chooser in (one, other):
            chooser.observe(2 * HOP_NS if blocks else 0)
        assert one.blocking_share == pytest.approx(other.blocking_share)
        assert one.mode == other.mode


def test_the_first_decision_takes_a_few_tasks_and_no_more():
    chooser = ModeChooser("auto")
    for number in range(FEWEST):
        assert chooser.mode == "async"
        chooser.observe(2 * HOP_NS if number % 2 else 0)
    assert chooser.mode == "hybrid"


def test_between_the_thresholds_the_mode_stays():
    chooser = ModeChooser("auto")
    for _ in range(1000):
        for blocking in (1, 0, 0, 0):  # 25% in an even pattern
            chooser.observe(blocking * 2 * HOP_NS)
    assert chooser.mode == "async"
    for _ in range(500):
        chooser.observe(2 * HOP_NS)
    for _ in range(1000):
        for blocking in (1, 0, 0, 0):
            chooser.observe(blocking * 2 * HOP_NS)
    assert chooser.mode == "hybrid" and chooser.switches == 1


def test_short_callables_do_not_count_as_blocking():
    chooser = ModeChooser("auto")
    for _ in range(1000):
        chooser.observe(HOP_NS // 2)
    assert chooser.mode == "async" and chooser.blocking_share == 0


@pytest.mark.parametrize("mode", ["inline", "async", "hybrid"])
def test_a_fixed_mode_stays(mode):
    chooser = ModeChooser(mode)
    for _ in range(1000):
        chooser.observe(2 * HOP_NS)
    assert chooser.mode == mode and chooser.blocking_share > 0.9
