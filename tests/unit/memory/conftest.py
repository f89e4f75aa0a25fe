"""A new seed each run, printed, so that a failure can be drawn again."""

from __future__ import annotations

import secrets

import pytest


@pytest.fixture
def seed() -> int:
    number = secrets.randbelow(2**32)
    print(f"seed={number}")
    return number
