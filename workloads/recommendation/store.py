"""The feature store: what every user did, day by day, in SQLite. A look-up adds it up, as a store does whose features must be fresh."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.workloads.recommendation.population import DAYS, DENSE, OF_USER, Population, dense_features, population

_SUMS = ", ".join(f"SUM(count) FILTER (WHERE kind = {kind})" for kind in range(DENSE))
LOOK_UP = f"SELECT (SELECT ids FROM users WHERE user = ?1), {_SUMS} FROM activity WHERE user = ?1"


class FeatureStore:
    """A database in a temporary folder, made at the start, gone after `close`. Any thread may look up; there are as many connections as
    there were look-ups at the same time.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="openinfer-features-")
        self.path = Path(self._folder.name) / "features.sqlite"
        self._idle: list[sqlite3.Connection] = []
        with contextlib.closing(sqlite3.connect(self.path)) as store, store:
            _fill(store, population())

    def blank(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What a request carries before its look-up: nothing of the user."""
        dense, ids = np.full_like(inputs["dense"], np.nan), inputs["ids"].copy()
        ids[:, OF_USER] = -1
        return {"dense": dense, "ids": ids}

    def look_up(self, request: tuple[int, Mapping[str, Any]]) -> dict[str, Any]:
        """The model's inputs for (user, what the request carries). Blocks; the database releases the GIL while it adds up."""
        user, carried = request
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = sqlite3.connect(self.path, timeout=60, check_same_thread=False)
        found = connection.execute(LOOK_UP, (user,)).fetchone()
        self._idle.append(connection)
        dense = dense_features(np.array(found[1:], np.int64))
        ids = carried["ids"].copy()
        ids[:, OF_USER] = np.frombuffer(found[0], np.int64)
        return {"dense": np.repeat(dense[None], len(ids), axis=0), "ids": ids}

    def close(self) -> None:
        """Close every connection and remove the database."""
        while self._idle:
            self._idle.pop().close()
        self._folder.cleanup()


def _fill(store: sqlite3.Connection, people: Population) -> None:
    store.execute("PRAGMA synchronous = OFF")  # it is made anew at every start
    store.execute("CREATE TABLE users (user INTEGER PRIMARY KEY, ids BLOB)")
    columns = "user INTEGER, day INTEGER, kind INTEGER, count INTEGER, PRIMARY KEY (user, day, kind)"
    store.execute(f"CREATE TABLE activity ({columns}) WITHOUT ROWID")
    store.executemany("INSERT INTO users VALUES (?, ?)", ((user, ids.tobytes()) for user, ids in enumerate(people.ids)))
    days, kinds = np.divmod(np.arange(DAYS * DENSE), DENSE)
    for user, counts in enumerate(people.counts):
        values = counts.T.reshape(-1).tolist()
        store.executemany(f"INSERT INTO activity VALUES ({user}, ?, ?, ?)", zip(days.tolist(), kinds.tolist(), values, strict=True))
