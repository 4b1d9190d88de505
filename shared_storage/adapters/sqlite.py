"""State in one SQLite file, WAL mode and `synchronous=FULL`: a put that returned is on the disk.

Layout, version 1 (`PRAGMA user_version`):

    state(kind, key, version, value, updated_at, written)   primary key (kind, key)
    state_by_written(kind, written)

`written` counts the writes of a kind; it orders them where the clock does not.
"""

from __future__ import annotations

import builtins
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared_storage.adapters.leaving_out import leaving_out
from shared_storage.errors import LayoutTooNew
from shared_storage.ports import Versioned
from shared_storage.versions import next_version

with leaving_out("pandas"):
    from sqlite_utils import Database


def _create_state(db: Database) -> None:
    db.table("state").create(
        {
            "kind": str,
            "key": str,
            "version": int,
            "value": bytes,
            "updated_at": float,
            "written": int,
        },
        pk=("kind", "key"),
        not_null={"version", "value", "updated_at", "written"},
    )
    db.table("state").create_index(["kind", "written"], index_name="state_by_written", unique=True)


# Migration n takes layout n to n + 1. Append; never change one that was released.
MIGRATIONS: tuple[Callable[[Database], None], ...] = (_create_state,)

_COLUMNS = "key, version, value, updated_at"


class SqliteStateStore:
    """The StateStore port on one file: one connection, one call at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = Database(sqlite3.connect(path, isolation_level=None, check_same_thread=False))
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
            self._db.execute(f"PRAGMA {pragma}")
        try:
            _migrate(self._db, path)
        except BaseException:
            self._db.close()
            raise

    def get(self, kind: str, key: str) -> Versioned | None:
        """The value now, or None."""
        with self._lock:
            rows = self._rows("kind = ? AND key = ?", (kind, key))
        return rows[0] if rows else None

    def put(
        self, kind: str, key: str, value: bytes, *, expected: int | None = None, now: float
    ) -> int:
        """Store the value; see `shared_storage.ports.StateStore`."""
        with self._lock, self._db.atomic():
            found = self._rows("kind = ? AND key = ?", (kind, key))
            version = next_version(f"{kind} {key}", found[0].version if found else 0, expected)
            self._write(kind, key, version, value, now)
        return version

    def delete(self, kind: str, key: str) -> bool:
        """Remove the value; False if there was none."""
        with self._lock, self._db.atomic():
            return self._remove("kind = ? AND key = ?", (kind, key)) > 0

    def list(
        self, kind: str, *, limit: int, newest_first: bool = True, skip: int = 0
    ) -> builtins.list[Versioned]:
        """Up to `limit` values in the order of their last writes, without the first `skip`."""
        order = "DESC" if newest_first else "ASC"
        with self._lock:
            where = f"kind = ? ORDER BY written {order} LIMIT ? OFFSET ?"
            return self._rows(where, (kind, limit, skip))

    def prune(self, kind: str, *, keep_newest: int) -> int:
        """Remove all but the last written values and return how many are gone."""
        with self._lock, self._db.atomic():
            return self._prune(kind, keep_newest)

    def count(self, kind: str) -> int:
        """How many values there are of a kind."""
        with self._lock:
            found = self._db.execute("SELECT count(*) FROM state WHERE kind = ?", (kind,))
            counted: int = found.fetchone()[0]
        return counted

    def close(self) -> None:
        """Close the file; the WAL is folded into it."""
        with self._lock:
            self._db.close()

    def _rows(self, where: str, values: tuple[Any, ...]) -> builtins.list[Versioned]:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM state WHERE {where}", values)
        return [Versioned(*row) for row in found.fetchall()]

    def _write(self, kind: str, key: str, version: int, value: bytes, now: float) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO state (kind, key, version, value, updated_at, written)"
            " VALUES (?1, ?2, ?3, ?4, ?5,"
            " (SELECT coalesce(max(written), 0) + 1 FROM state WHERE kind = ?1))",
            (kind, key, version, bytes(value), now),
        )

    def _prune(self, kind: str, keep_newest: int) -> int:
        return self._remove(
            "kind = ?1 AND written <= (SELECT written FROM state WHERE kind = ?1"
            " ORDER BY written DESC LIMIT 1 OFFSET ?2)",
            (kind, keep_newest),
        )

    def _remove(self, where: str, values: tuple[Any, ...]) -> int:
        removed: int = self._db.execute(f"DELETE FROM state WHERE {where}", values).rowcount
        return removed


def _migrate(db: Database, path: Path) -> None:
    """Bring the file to the newest layout, in one step or not at all."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise LayoutTooNew(f"{path} has layout {version}; this program knows {len(MIGRATIONS)}")
    with db.atomic():
        for migration in MIGRATIONS[version:]:
            migration(db)
        db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
