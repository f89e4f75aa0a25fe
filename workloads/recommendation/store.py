"""The feature store: what every user did, day by day, in SQLite. A look-up adds it up, as a store does whose features must be fresh."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from openinfer.workloads.recommendation.population import DAYS, DENSE, OF_USER, Population, dense_features, population

_SUMS = ", ".join(f"SUM(count) FILTER (WHERE kind = {kind})" for kind in range(DENSE))
LOOK_UP = f"SELECT (SELECT ids FROM users WHERE user = ?1), {_SUMS} FROM activity WHERE user = ?1"


class FeatureStore:
    """A database in a temporary folder, made at the start, gone after `close`. Any thread may look up: each has a connection of its own."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="openinfer-features-")
        self._path = Path(self._folder.name) / "features.sqlite"
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        with contextlib.closing(sqlite3.connect(self._path)) as store, store:
            _fill(store, population())

    def blank(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What a request carries before its look-up: nothing of the user."""
        dense, ids = np.full_like(inputs["dense"], np.nan), inputs["ids"].copy()
        ids[:, OF_USER] = -1
        return {"dense": dense, "ids": ids}

    def look_up(self, request: tuple[int, Mapping[str, Any]]) -> dict[str, Any]:
        """The model's inputs for (user, what the request carries). Blocks; the database releases the GIL while it adds up."""
        user, carried = request
        found = self._connection().execute(LOOK_UP, (user,)).fetchone()
        dense = dense_features(np.array(found[1:], np.int64))
        ids = carried["ids"].copy()
        ids[:, OF_USER] = np.frombuffer(found[0], np.int64)
        return {"dense": np.repeat(dense[None], len(ids), axis=0), "ids": ids}

    def close(self) -> None:
        """Close every connection and remove the database."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._folder.cleanup()

    def _connection(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = sqlite3.connect(self._path, check_same_thread=False)
            self._connections.append(found)
        return found


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
