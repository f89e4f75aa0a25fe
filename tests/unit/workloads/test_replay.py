"""Replay through `submit`: open loop, in order of arrival, every answer kept, failures named."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from openinfer.workloads.replay import precise_loop, replay_submit

from openinfer.errors import WorkloadError


def run(replay):
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(replay)


def test_requests_are_sent_when_due_whatever_the_answers_do():
    held: list[asyncio.Event] = []

    async def submit(index):
        if index == 7:  # the last one lets the others go
            for event in held:
                event.set()
            return index
        held.append(asyncio.Event())
        await held[-1].wait()
        return index

    times, answers = run(replay_submit(np.arange(8) * 1e-4, 8, submit))
    assert answers == list(range(8))
    assert (times.start_ns >= times.intended_ns).all() and (times.lateness_ns == times.start_ns - times.intended_ns).all()
    assert (times.corrected_ns == times.raw_ns + times.lateness_ns).all()
    assert (times.end_ns[:7] >= times.start_ns[7]).all()


def test_without_a_schedule_one_follows_the_other():
    under_way = [0]

    async def submit(index):
        under_way[0] += 1
        await asyncio.sleep(0)
        assert under_way[0] == 1
        under_way[0] -= 1
        return {"y": index}

    times, answers = run(replay_submit(None, 5, submit))
    assert [answer["y"] for answer in answers] == list(range(5))
    assert (times.start_ns[1:] >= times.end_ns[:-1]).all() and (times.lateness_ns == 0).all()


def test_requests_that_fail_are_counted_once_all_have_ended():
    ended = []

    async def submit(index):
        if index % 3 == 0:
            raise ValueError(f"no {index}")
        await asyncio.sleep(0)
        ended.append(index)

    with pytest.raises(WorkloadError, match="3 of 7 requests got no answer; the first: no 0"):
        run(replay_submit(np.zeros(7), 7, submit))
    assert ended == [1, 2, 4, 5]
