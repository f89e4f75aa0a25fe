"""The escape suite: nothing gets out of a locked worker, as root and as an ordinary user; most gets through where nothing is locked."""

from __future__ import annotations

import os

import pytest

from openinfer.sandbox import lockdown
from openinfer.sandbox.attacks import suite
from openinfer.sandbox.attacks.target import ATTACKS

pytestmark = pytest.mark.skipif(bool(lockdown.missing()), reason=f"needs a kernel with {', '.join(lockdown.missing())}")


@pytest.mark.parametrize("name", suite.identities())
def test_nothing_gets_out(name: str) -> None:
    user, lock = suite.identities()[name]
    # Attacks on the ring meet the parent, whoever the worker is.
    verdicts, given_up = suite.run(user, lock, without=("ring",) if lock == "keep-root" else ())
    assert len(verdicts) >= (100 if lock == "keep-root" else len(ATTACKS))
    assert [(verdict.name, verdict.how) for verdict in verdicts if verdict.stopped is not True] == []
    assert set(lockdown.REQUIRED) <= set(given_up)
    assert os.geteuid() != 0 or lock == "keep-root" or "capabilities" in given_up


def test_most_get_through_where_nothing_is_locked() -> None:
    outside, given_up = suite.run(lock="none", without=("ring",))
    through = {verdict.name for verdict in outside if verdict.stopped is False}
    assert given_up == ()
    assert len(through) > (0.9 if os.geteuid() == 0 else 0.6) * len(outside), sorted({v.name for v in outside} - through)
    assert {"read a private file", "create a file", "connect by TCP", "fork", "write code, then make it executable"} <= through


def test_names_are_unique() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
