"""The watchdog names what stands still, with the line that it stands on; the clock is given."""

from __future__ import annotations

import asyncio
import logging
import threading

import numpy as np
import pytest
from models import mlp

import openinfer
from openinfer.scheduler.watchdog import Watchdog

STALL_MS = 3_600_000  # its own thread never looks during a test
HOUR_NS = STALL_MS * 1_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("OPENINFER_CACHE", str(tmp_path_factory.getbasetemp() / "watchdog-cache"))


@pytest.fixture
def loaded():
    with openinfer.load(mlp(), {"scheduler": {"stall_ms": STALL_MS, "mode": "hybrid"}}) as engine:
        yield engine


def watchdog(engine: openinfer.Engine) -> Watchdog:
    (scheduler,) = engine._schedulers.values()
    assert scheduler.watchdog is not None
    return scheduler.watchdog


def test_a_stuck_blocking_call_is_named_once_with_its_stack(loaded, caplog):
    entered, release = threading.Event(), threading.Event()

    def looks_up(key):
        entered.set()
        assert release.wait(60)
        return {"x": np.zeros((1, 40), np.float32)}

    async def main():
        task = asyncio.ensure_future(loaded.submit(0, prepare=looks_up))
        while not entered.is_set():
            await asyncio.sleep(0)
        (scheduler,) = loaded._schedulers.values()
        while not (running := scheduler.blocking.running()):
            await asyncio.sleep(0)
        begun = running[0].begun_ns
        assert watchdog(loaded).look(begun + HOUR_NS - 1) == []
        with caplog.at_level(logging.WARNING, "openinfer"):
            (found,) = watchdog(loaded).look(begun + HOUR_NS + 1)
        again = watchdog(loaded).look(begun + 2 * HOUR_NS)
        release.set()
        await task
        return found, [finding for finding in again if finding.kind == "blocking call"]

    found, again = asyncio.run(main())
    assert found.kind == "blocking call" and found.name.endswith("looks_up") and found.stalled_ns == HOUR_NS + 1
    assert "release.wait(60)" in found.stack and "release.wait(60)" in caplog.text
    assert again == []


def test_a_loop_that_does_not_turn_is_named_with_the_line_that_holds_it(loaded):
    findings = []

    async def main():
        await loaded.submit({"x": np.zeros((1, 40), np.float32)})
        dog = watchdog(loaded)

        def look():  # from another thread, while this one holds the loop
            dog.look(1)
            findings.extend(dog.look(2 + HOUR_NS))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert dog.statistics()["loop_lag_ns"]["max"] > 0

    asyncio.run(main())
    (found,) = findings
    assert found.kind == "loop" and ", in main\n" in found.stack


def test_without_a_watchdog_no_thread_is_started():
    before = set(threading.enumerate())

    async def main():
        with openinfer.load(mlp(), {"scheduler": {"stall_ms": 0}}) as engine:
            await engine.submit({"x": np.zeros((1, 40), np.float32)})
            return set(threading.enumerate())

    assert not asyncio.run(main()) - before
