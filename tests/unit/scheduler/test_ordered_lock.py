"""Lock-order cycles are named before two threads ever wait for each other."""

from __future__ import annotations

import threading

import pytest

from openinfer.errors import LockOrderError
from openinfer.scheduler.ordered_lock import LockOrder, OrderedLock


def test_the_second_order_is_named_although_nobody_waits():
    order = LockOrder()
    a, b = OrderedLock("A", order), OrderedLock("B", order)

    def first():
        with a, b:
            pass

    thread = threading.Thread(target=first, name="first")
    thread.start()
    thread.join()
    with pytest.raises(LockOrderError, match=r"takes B -> A, thread 'first' took A -> B"), b, a:
        pass
    with a, b:  # the locks are free, and the good order still works
        pass


def test_a_cycle_of_three_is_named_with_its_path():
    order = LockOrder()
    a, b, c = (OrderedLock(name, order) for name in "ABC")
    with a, b:
        pass
    with b, c:
        pass
    with pytest.raises(LockOrderError, match="A -> B -> C"), c, a:
        pass


def test_a_lock_taken_twice_is_named():
    lock = OrderedLock("A", LockOrder())
    with pytest.raises(LockOrderError, match="held by this thread"), lock, lock:
        pass
    with lock:
        pass


def test_waiting_is_counted():
    lock = OrderedLock("A")
    entered, leave = threading.Event(), threading.Event()

    def holder():
        with lock:
            entered.set()
            assert leave.wait(60)

    def waiter():
        with lock:
            pass

    holding = threading.Thread(target=holder)
    holding.start()
    assert entered.wait(60)
    waiting = threading.Thread(target=waiter)
    waiting.start()
    waiting.join(0.05)  # long enough for it to stand before the lock
    leave.set()
    holding.join()
    waiting.join()
    assert lock.contended == 1 and lock.waited_ns > 0
