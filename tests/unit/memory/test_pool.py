"""Leases: apart from each other, inside the budget, given back when idle; mistakes have names."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from openinfer.errors import CanaryError, DoubleReleaseError, LeaseError, MemoryBudgetError, UseAfterReleaseError
from openinfer.memory.controller import Policy
from openinfer.memory.pool import Pool
from openinfer.memory.region import MappedRegion, UnmappedRegion
from openinfer.memory.size_classes import PAGE, SMALL, SizeClasses


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize("alignment", [64, 128, 4096])
@pytest.mark.parametrize("growth", [1.01, 1.125, 2.0])
def test_classes_hold_what_they_are_for_and_waste_little(growth, alignment, seed):
    classes = SizeClasses(growth, alignment)
    assert classes.sizes == sorted(set(classes.sizes))
    for size in np.exp(np.random.default_rng(seed).uniform(0, np.log(1 << 34), 500)).astype(int).tolist():
        found = classes.of(size)
        assert found >= size and found % alignment == 0 and (found <= SMALL or found % PAGE == 0)
        assert found <= size * growth + max(alignment, PAGE if found > SMALL else 0)
    assert classes.of((1 << 41) + 1) == (1 << 41) + PAGE


@pytest.mark.parametrize("controller", [True, False])
@pytest.mark.parametrize("checks", ["", "1"])
def test_leases_never_share_a_byte(seed, controller, checks, monkeypatch):
    monkeypatch.setenv("OPENINFER_CHECKS", checks)
    rng, clock = np.random.default_rng(seed), Clock()
    pool = Pool(Policy(budget_bytes=8 << 20, idle_s=1.0, controller=controller, alignment=128), clock=clock)
    live = []
    for number in range(1500):
        clock.now += float(rng.exponential(0.02))
        if live and rng.random() < 0.5:
            lease, mark = live.pop(int(rng.integers(len(live))))
            assert (lease.array == mark).all()
            lease.release()
        else:
            size = int(np.exp(rng.uniform(0, np.log(300_000))))
            try:
                lease = pool.lease(size, "test")
            except MemoryBudgetError:
                live.pop(0)[0].release()
                continue
            assert lease.array.nbytes == size and lease.array.ctypes.data % 128 == 0
            lease.array[:] = number % 251
            live.append((lease, number % 251))
    pool.verify()
    statistics = pool.statistics()
    assert statistics.high_water_bytes <= 8 << 20
    assert statistics.requested_bytes == sum(lease.size_bytes for lease, _ in live) == statistics.owners.get("test", 0)
    assert statistics.requested_bytes <= statistics.leased_bytes <= statistics.held_bytes <= statistics.mapped_bytes
    assert 0 <= statistics.internal_fragmentation < 1 and 0 <= statistics.external_fragmentation < 1
    for lease, _ in live:
        lease.release()
    pool.trim()
    after = pool.statistics()
    assert (after.live_leases, after.leased_bytes, after.held_bytes, after.mapped_bytes, after.resident_bytes) == (0, 0, 0, 0, 0)


def test_at_the_budget_one_line_is_raised_and_the_next_request_succeeds():
    pool = Pool(Policy(budget_bytes=1 << 20))
    first = pool.lease(900_000, "first")
    with pytest.raises(MemoryBudgetError, match=r"^'second' asks for 200000 bytes .* allowed: .* raise the budget") as caught:
        pool.lease(200_000, "second")
    assert "\n" not in str(caught.value)
    first.release()
    pool.lease(200_000, "second").release()
    assert pool.statistics().refusals == 1


def test_idle_memory_of_one_size_makes_room_for_another():
    pool = Pool(Policy(budget_bytes=1 << 20, controller=False))
    for size in (100_000, 300_000, 900_000, 1000, 900_000):
        pool.lease(size, "x").release()
    assert pool.statistics().counts["reclaim"] >= 1 and pool.statistics().refusals == 0


def test_memory_outside_the_pool_counts_against_the_budget():
    pool = Pool(Policy(budget_bytes=1 << 20))
    pool.charge(800_000, "weights")
    with pytest.raises(MemoryBudgetError):
        pool.lease(400_000, "x")
    with pytest.raises(MemoryBudgetError, match="'more weights'"):
        pool.charge(400_000, "more weights")
    pool.charge(-800_000, "weights")
    pool.lease(400_000, "x").release()


def test_what_can_be_made_again_is_let_go_before_a_request_is_refused():
    kept = []

    def reclaim():
        while kept:
            kept.pop().release()
            return True
        return False

    pool = Pool(Policy(budget_bytes=1 << 20), reclaim=reclaim)
    kept.extend(pool.lease(400_000, "kept") for _ in range(2))
    with pool.lease(1_000_000, "x"):
        assert not kept
    with pool.lease(900_000, "x"), pytest.raises(MemoryBudgetError):
        pool.lease(900_000, "y")


def test_shared_leases_last_until_the_last_holder():
    pool = Pool()
    lease = pool.lease(1000, "weights", shared=True)
    lease.share()
    lease.release()
    assert lease.array.nbytes == 1000 and pool.statistics().live_leases == 1
    lease.release()
    assert pool.statistics().live_leases == 0
    with pytest.raises(UseAfterReleaseError, match="'weights'"):
        lease.share()
    with pool.lease(10, "alone") as alone, pytest.raises(LeaseError, match="exclusive"):
        alone.share()


def test_use_after_release_and_double_release_are_named():
    lease = Pool().lease(64, "someone")
    lease.release()
    with pytest.raises(UseAfterReleaseError, match="'someone'"):
        lease.array.fill(0)
    with pytest.raises(DoubleReleaseError, match="'someone'"):
        lease.release()


def test_checks_find_writes_beside_and_after_a_lease(monkeypatch):
    monkeypatch.setenv("OPENINFER_CHECKS", "1")
    pool = Pool()
    lease = pool.lease(1000, "careless")
    assert lease.array.min() == lease.array.max() == 0xAB  # what was never written does not look like a result
    beyond = np.lib.stride_tricks.as_strided(lease.array, (1001,), (1,))
    beyond[1000] = 1
    with pytest.raises(CanaryError, match="'careless': 1 bytes after it"):
        pool.verify()
    with pytest.raises(CanaryError, match="after"):
        lease.release()
    assert pool.statistics().live_leases == 0
    for size in (1000, 100_000):
        kept = pool.lease(size, "late")
        stale = kept.array
        kept.release()
        pool.verify()
        stale[7] = 1
        with pytest.raises(UseAfterReleaseError, match="'late'"):
            pool.verify()
        with pytest.raises(UseAfterReleaseError, match="'late'"):
            pool.lease(size, "next")
        pool.lease(size, "next").release()


def test_the_controller_keeps_more_after_misses_and_less_when_idle():
    clock = Clock()
    pool = Pool(Policy(idle_s=10.0), clock=clock)
    base = pool.lease(64 << 20, "base")
    for _ in range(6):
        burst = [pool.lease(1_000_000, "burst") for _ in range(8)]
        clock.now += 1.0
        for lease in burst:
            lease.release()
    statistics = pool.statistics()
    assert statistics.counts["grow"] >= 1 and statistics.miss_rate < 0.5
    busy = statistics.held_bytes
    for _ in range(8):
        clock.now += 10.0
        pool.step()
    quiet = pool.statistics()
    assert quiet.counts["shrink"] >= 1 and quiet.counts["trim"] >= 1
    assert busy - (4 << 20) > quiet.held_bytes and quiet.external_fragmentation <= 0.05
    assert {decision.action for decision in quiet.decisions} >= {"grow", "shrink", "trim", "map"}
    assert all(decision.reason for decision in quiet.decisions)
    base.release()


def test_one_quiet_window_between_busy_ones_takes_nothing_away():
    clock = Clock()
    pool = Pool(Policy(idle_s=10.0), clock=clock)
    with pool.lease(64 << 20, "base"):
        for _ in range(5):
            pool.lease(100_000, "x").release()
            clock.now += 15.0
        assert pool.statistics().misses == 2


def test_finalizers_return_leases_without_a_lock():
    pool = Pool()
    lease = pool.lease(5000, "table")
    later = pool.return_later(lease)
    with pool._lock.lock:
        later()
    assert pool.statistics().live_leases == 0


def test_trimmed_memory_leaves_the_machine():
    pool = Pool()
    lease = pool.lease(8 << 20, "x")
    lease.array[:] = 1
    other = pool.lease(1 << 20, "pins the region")
    other.array[:] = 1
    lease.release()
    assert pool.statistics().resident_bytes >= 1 << 20
    pool.trim()
    after = pool.statistics()
    assert after.held_bytes == after.leased_bytes and after.resident_bytes <= after.leased_bytes
    other.release()


def test_a_view_outlives_its_region():
    pool = Pool()
    lease = pool.lease(1 << 20, "x")
    view = lease.array
    view[:] = 3
    lease.release()
    pool.trim()
    del pool, lease
    gc.collect()
    view[:] = 4
    assert (view == 4).all()


@pytest.mark.parametrize("huge", [False, True])
def test_regions_read_zero_after_a_purge(huge):
    region = MappedRegion(1 << 22, huge)
    region.view(0, 1 << 22)[:] = 7
    assert region.resident_bytes() == 1 << 22
    region.purge(PAGE, 1 << 20)
    assert not region.view(PAGE, 1 << 20).any() and region.view(0, PAGE).all() and region.view(PAGE + (1 << 20), PAGE).all()


def test_a_size_that_the_system_refuses_is_a_budget_error():
    with pytest.raises(MemoryBudgetError, match="what the system gives"):
        Pool().lease(1 << 62, "x")


def test_threads_get_leases_of_their_own(seed):
    pool = Pool(Policy(idle_s=0.001))
    wrong = []

    def work(mark):
        rng = np.random.default_rng(seed + mark)
        for size in rng.integers(1, 60_000, 300).tolist():
            with pool.lease(size, f"thread {mark}") as lease:
                lease.array[:] = mark
                if not (lease.array == mark).all():
                    wrong.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and pool.statistics().live_leases == 0 and pool.statistics().leases == 1200


def test_pages_are_neither_lost_nor_counted_twice(seed):
    rng, clock = np.random.default_rng(seed), Clock()
    pool = Pool(Policy(idle_s=2.0), clock=clock, new_region=UnmappedRegion)
    live = []
    for _ in range(4000):
        clock.now += float(rng.exponential(0.05))
        if live and rng.random() < 0.5:
            live.pop(int(rng.integers(len(live)))).release()
        else:
            live.append(pool.lease(int(rng.integers(1, 500_000)), "x"))
        heap = pool._heap
        extents = [e for held in heap._held.values() for e in held.starts.values()]
        assert sum(e.size for e in extents if e.dirty) == heap.dirty_bytes
        assert sum(e.size for e in extents) + pool._leased + pool._idle_bytes == heap.mapped_bytes
        assert len(extents) == sum(map(len, heap._free.values()))
