"""The pool for blocking calls: the loop stands aside for brisk ones and goes on beside those that wait. Events, no clock."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from openinfer.errors import OverloadError, SchedulerError
from openinfer.scheduler.blocking import BlockingPool
from openinfer.scheduler.callable_kind import MOST_PATIENCE_NS, MOST_PROBE_NS, PATIENCE_NS, PROBE_NS, Kind, Kinds
from openinfer.scheduler.mailbox import Mailbox

MINUTE_NS = 60_000_000_000


def double(x):
    return 2 * x


def run(main, threads: int = 3, limit: int = 1000):
    async def with_pool():
        pool = BlockingPool(threads, limit, Mailbox(asyncio.get_running_loop()))
        try:
            return await asyncio.wait_for(main(pool), 60)
        finally:
            pool.close()

    return asyncio.run(with_pool())


async def value(pool, function, argument):
    return (await pool.call(function, argument, MINUTE_NS, False)).future.result()


def seen_to_wait(pool, function):
    kind = pool.kinds.find(function)
    kind.waits, kind._probe_at_ns = 1.0, 1 << 62


@pytest.mark.parametrize("waits", [False, True])
def test_every_caller_gets_its_own_value(waits):
    async def main(pool):
        if waits:
            seen_to_wait(pool, double)
        return await asyncio.gather(*[value(pool, double, i) for i in range(500)])

    assert run(main) == [2 * i for i in range(500)]


def test_the_loop_goes_on_beside_a_call_that_waits_for_it():
    released = threading.Event()

    def waits(x):
        assert released.wait(60)
        return x

    async def main(pool):
        waiting = [asyncio.ensure_future(value(pool, waits, i)) for i in range(2)]
        assert await value(pool, double, 21) == 42  # behind them in the same turn
        assert not any(task.done() for task in waiting)
        released.set()
        return await asyncio.gather(*waiting)

    assert run(main) == [0, 1]


def test_calls_beyond_the_threads_wait_for_one():
    released, begun = threading.Event(), []

    def waits(x):
        begun.append(x)
        assert released.wait(60)
        return x

    async def main(pool):
        tasks = [asyncio.ensure_future(value(pool, waits, i)) for i in range(20)]
        while len(begun) < 3:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(begun) == 3 and pool.statistics()["waiting"] == 17 and pool.statistics()["threads"] == 3
        released.set()
        return await asyncio.gather(*tasks)

    assert run(main) == list(range(20))


def test_calls_that_threads_and_turns_both_may_take_are_answered_once():
    released, begun = threading.Event(), []

    def waits(x):
        begun.append(x)
        assert released.wait(60)
        return x

    async def main(pool):
        seen_to_wait(pool, waits)
        kind = pool.kinds.find(waits)
        tasks = [asyncio.ensure_future(value(pool, waits, i)) for i in range(30)]
        while len(begun) < 3:
            await asyncio.sleep(0)
        kind.waits, kind._probe_at_ns = 0.5, 0
        released.set()
        return await asyncio.gather(*tasks)

    assert run(main) == list(range(30)) and sorted(begun) == list(range(30))


def test_what_a_brisk_call_raises_is_its_caller_s():
    def fails(x):
        raise LookupError(x)

    async def main(pool):
        calls = [value(pool, fails if i == 3 else double, i) for i in range(6)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = run(main)
    assert isinstance(answers.pop(3), LookupError) and answers == [0, 2, 4, 8, 10]


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_what_would_end_the_loop_is_an_error_of_one_request(waits, raised):
    def leave(_):
        raise raised

    async def main(pool):
        if waits:
            seen_to_wait(pool, leave)
        with pytest.raises(SchedulerError, match=raised.__name__) as caught:
            await value(pool, leave, 0)
        assert isinstance(caught.value.__cause__, raised)
        return await value(pool, double, 2)

    assert run(main) == 4


def test_a_closed_pool_begins_nothing():
    async def main(pool):
        pool.close()
        with pytest.raises(SchedulerError, match="closed"):
            await value(pool, double, 2)

    run(main)


@pytest.mark.parametrize("waits", [False, True])
def test_a_full_pool_refuses(waits):
    released = threading.Event()

    def holds(x):
        assert released.wait(60)
        return x

    async def main(pool):
        if waits:
            seen_to_wait(pool, holds)
        tasks = [asyncio.ensure_future(value(pool, holds, i)) for i in range(40)]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        released.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert done and sum(isinstance(answer, OverloadError) for answer in answers) >= 40 - 5 - 3
        assert "scheduler.queue_limit = 5" in str(answers[-1])

    run(main, limit=5)


def test_cancelled_calls_are_not_begun():
    begun = []

    async def main(pool):
        task = asyncio.ensure_future(value(pool, begun.append, 1))
        await asyncio.sleep(0)
        task.cancel()
        await value(pool, double, 1)
        assert task.cancelled()

    run(main)
    assert not begun


def test_a_kind_that_waits_is_tried_less_and_less_often():
    kind = Kind()
    now = 10**9
    assert kind.brisk(now)
    while kind.waits < 0.5:
        kind.stood_still(now)
    tries, last = [], now
    for now in range(last, last + 10**9, PROBE_NS):
        if kind.brisk(now):
            tries.append(now - last)
            last = now
            kind.stood_still(now)
    assert tries == sorted(tries) and tries[0] == PROBE_NS and tries[-1] == MOST_PROBE_NS and len(tries) < 25
    kind.ended_soon()
    while kind.waits >= 0.5:
        kind.ended_soon()
    assert kind.brisk(now)


def test_patience_grows_with_the_work_and_long_work_is_never_stood_aside_for():
    kind = Kind()
    assert kind.patience_ns == PATIENCE_NS
    for _ in range(50):
        kind.ended(MOST_PATIENCE_NS // 2)
    assert kind.patience_ns == MOST_PATIENCE_NS and kind.brisk(0)
    for _ in range(50):
        kind.ended(MOST_PATIENCE_NS)
    assert not kind.brisk(0)


def test_a_kind_is_its_code():
    kinds = Kinds()

    def made(n):
        return lambda x: x + n

    assert kinds.find(made(1)) is kinds.find(made(2)) is kinds.find(functools.partial(made(3), 4))
    assert kinds.find(double) is not kinds.find(made(1))
