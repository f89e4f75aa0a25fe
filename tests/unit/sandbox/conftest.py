"""One sandboxed model for all tests of a module: loading takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import models
import pytest

from openinfer.engine import Engine, load


@pytest.fixture(scope="module")
def plain() -> Iterator[Engine]:
    with load(models.mlp()) as engine:
        yield engine


@pytest.fixture(scope="module")
def boxed() -> Iterator[Engine]:
    with load(models.mlp(), {"sandbox": {"mode": "strict", "timeout_ms": 2000, "shared_mb": 16}}) as engine:
        yield engine
