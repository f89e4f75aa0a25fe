"""Waiting and waking on shared words."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from openinfer.sandbox import native

SECOND = 1_000_000_000


@pytest.mark.parametrize(("nap_ns", "value", "answer"), [(0, 7, 0), (60 * SECOND, 7, 0), (0, 0, 1)])
def test_a_sleeper_is_woken_by_a_change_and_without_one(nap_ns, value, answer):
    words = np.zeros(16, np.int64)
    word, waiters, found = words.ctypes.data, words.ctypes.data + 64, []
    sleeper = threading.Thread(target=lambda: found.append(native.wait()(word, 0, waiters, nap_ns, 0, 60 * SECOND)))
    sleeper.start()
    post = native.post()
    while sleeper.is_alive():
        if words[8]:  # it sleeps, or is about to
            post(word, value, waiters)
    assert found == [answer] and words[8] == 0 and words[0] == value


def test_what_has_changed_already_is_not_waited_for():
    words = np.zeros(16, np.int64)
    assert native.wait()(words.ctypes.data, 1, words.ctypes.data + 64, SECOND, SECOND, SECOND) == 0
    assert native.wait()(words.ctypes.data, 0, words.ctypes.data + 64, 0, 0, 1000) == 1
