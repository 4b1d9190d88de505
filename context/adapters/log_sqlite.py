"""The embedded log: SQLite in WAL mode, `synchronous=FULL`, one row a batch.

Drafts that share a commit share rows (`context.merging`).

Layout, version 1 (`PRAGMA user_version`):

    meta(key, value)                                epoch, and the highest term that wrote
    batches(first_offset, count, term, ingested_at, codec, body)
                                                    codec 0: lines as they are, 1: zstd
    keys(key, digest, first_offset, count, term, at)
                                                    idempotency keys of the last 24 h

A batch and its key are written in one transaction, so after a crash both are there or neither.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from context.compression import decompress
from context.damage import DamagedLog
from context.errors import ContextError, FencedOut, KeyReused, StorageFull
from context.items import Batch
from context.merging import merged
from context.ports import Appended, Draft, Outcome, Receipt

VERSION = 1
KEY_LIFETIME_S = 24 * 3600.0
_PRUNE_EVERY_S = 60.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE batches(first_offset INTEGER PRIMARY KEY, count INTEGER NOT NULL,
                     term INTEGER NOT NULL, ingested_at REAL NOT NULL,
                     codec INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE keys(key TEXT PRIMARY KEY, digest BLOB NOT NULL, first_offset INTEGER NOT NULL,
                  count INTEGER NOT NULL, term INTEGER NOT NULL, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX keys_at ON keys(at);
"""


class SqliteLog:
    """The Log port on one SQLite file. `append` is for one thread at a time, `read` for any."""

    def __init__(self, path: Path) -> None:
        """Open or make it. Raises DamagedLog, ContextError where the layout is another."""
        self._path = path
        self.lock = contextlib.nullcontext()  # nothing is applied beside the appending thread
        self._readers = threading.local()
        with self._noticing(0):
            self._db = self._connect()
            self._create()
            self.epoch = str(self._meta("epoch"))
            self._term = int(self._meta("term"))
            self._next = self._newest() + 1
        self._pruned_at = float("-inf")

    def append(self, drafts: Sequence[Draft], *, term: int, now: float) -> Appended:
        """Make all drafts durable with one fsync; see `context.ports.Log`."""
        if term < self._term:
            raise FencedOut(f"term {term} is older than {self._term}; find the leader again")
        db, before = self._db, self._next
        try:
            db.execute("BEGIN IMMEDIATE")
            if term > self._term:
                db.execute("UPDATE meta SET value = ? WHERE key = 'term'", (term,))
            self._prune_keys(now)
            stored: list[Draft] = []
            outcomes = [self._admit(draft, term, now, stored) for draft in drafts]
            batches = merged(stored, before, term=term, now=now)
            db.executemany("INSERT INTO batches VALUES (?,?,?,?,?,?)", map(_row, batches))
            db.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as exc:
            self._next = before
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise storage_error(exc) from exc
        self._term = term
        return Appended(outcomes, batches)

    def read(self, after: int, *, max_bytes: int) -> list[Batch]:
        """Whole batches with an offset > `after`, in order; at least one if there is any.

        Raises DamagedLog.
        """
        batches, size = [], 0
        with self._noticing(after + 1):
            for row in self._rows(after):
                batches.append(self._batch(row))
                size += len(batches[-1].text)
                if size >= max_bytes:
                    break
        return batches

    def bounds(self) -> tuple[int, int]:
        """Oldest and newest offset; (0, -1) where the log is empty."""
        row = self._reader().execute("SELECT min(first_offset) FROM batches").fetchone()
        return (row[0] or 0), self._newest()

    def terms(self, first: int, last: int) -> list[tuple[int, int]]:
        """The terms that wrote a range; see `context.ports.Log`. They only ever grow."""
        return (
            self._reader()
            .execute(
                "SELECT min(first_offset), term FROM batches"
                " WHERE first_offset BETWEEN ? AND ? GROUP BY term ORDER BY term",
                (first, last),
            )
            .fetchall()
        )

    def trim(self, through: int) -> None:
        """Drop whole batches up to an offset; see `context.ports.Log`. Pages are used again."""
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            db.execute("PRAGMA busy_timeout=5000")
            # What power loss undoes here is dropped again: it is sealed, and found to be so.
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(
                "DELETE FROM batches WHERE first_offset + count - 1 <= ?"
                " AND first_offset < (SELECT max(first_offset) FROM batches)",
                (through,),
            )
        except sqlite3.Error as exc:
            raise storage_error(exc) from exc
        finally:
            db.close()

    def close(self) -> None:
        """Close the writing connection; the WAL is folded into the file."""
        self._db.close()

    def _admit(self, draft: Draft, term: int, now: float, stored: list[Draft]) -> Outcome:
        """What becomes of a draft; what is to be stored joins `stored`."""
        if draft.key is not None:
            known = self._known(draft, now)
            if known:
                return known
            self._db.execute(
                "INSERT OR REPLACE INTO keys VALUES (?,?,?,?,?,?)",
                (draft.key, draft.digest, self._next, draft.count, term, now),
            )
        receipt = Receipt(self._next, draft.count, term)
        self._next += draft.count
        stored.append(draft)
        return receipt

    def _known(self, draft: Draft, now: float) -> Receipt | ContextError | None:
        row = self._db.execute(
            "SELECT digest, first_offset, count, term FROM keys WHERE key = ? AND at > ?",
            (draft.key, now - KEY_LIFETIME_S),
        ).fetchone()
        if row is None:
            return None
        if row[0] != draft.digest:
            return KeyReused(f"Idempotency-Key {draft.key!r} was used with another body before")
        _, first_offset, count, term = row
        return Receipt(first_offset, count, term, replayed=True)

    def _prune_keys(self, now: float) -> None:
        if now - self._pruned_at >= _PRUNE_EVERY_S:
            self._db.execute("DELETE FROM keys WHERE at <= ?", (now - KEY_LIFETIME_S,))
            self._pruned_at = now

    def _rows(self, after: int) -> Iterator[tuple[int, int, float, int, int, bytes]]:
        return self._reader().execute(
            "SELECT first_offset, count, ingested_at, term, codec, body FROM batches"
            " WHERE first_offset >= coalesce((SELECT max(first_offset) FROM batches"
            " WHERE first_offset <= ?1), 0) AND first_offset + count > ?1 ORDER BY first_offset",
            (after + 1,),
        )

    def _newest(self) -> int:
        row = (
            self._reader()
            .execute(
                "SELECT first_offset + count - 1 FROM batches ORDER BY first_offset DESC LIMIT 1"
            )
            .fetchone()
        )
        return row[0] if row else -1

    def _batch(self, row: tuple[int, int, float, int, int, bytes]) -> Batch:
        first, count, ingested_at, term, codec, body = row
        try:
            text = decompress(body) if codec else body
        except zstandard.ZstdError as exc:
            raise DamagedLog(str(self._path), first, str(exc)) from exc
        return Batch(first, count, ingested_at, term, text)

    @contextlib.contextmanager
    def _noticing(self, first: int) -> Iterator[None]:
        """Tell damage of the file from what else may go wrong with it."""
        try:
            yield
        except sqlite3.DatabaseError as exc:
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                raise DamagedLog(str(self._path), first, str(exc)) from exc
            raise

    def _reader(self) -> sqlite3.Connection:
        """This thread's own connection: readers never wait for the writer in WAL mode."""
        db: sqlite3.Connection | None = getattr(self._readers, "db", None)
        if db is None:
            db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)
            self._readers.db = db
        return db

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        # FULL syncs the WAL at every commit: acknowledged means on disk, also after power loss.
        for pragma in (
            "page_size=16384",
            "journal_mode=WAL",
            "synchronous=FULL",
            "wal_autocheckpoint=1000",
            "journal_size_limit=67108864",
            "busy_timeout=5000",
        ):
            db.execute(f"PRAGMA {pragma}")
        return db

    def _create(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == VERSION:
            return
        if version:
            raise ContextError(f"{self._path} has layout {version}; this program reads {VERSION}")
        self._db.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA}"
            f"INSERT INTO meta VALUES ('epoch', '{secrets.token_hex(4)}'), ('term', 0);"
            f"PRAGMA user_version={VERSION}; COMMIT;"
        )

    def _meta(self, key: str) -> str | int:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        value: str | int = row[0]
        return value


def _row(batch: Batch) -> tuple[int, int, int, float, int, bytes]:
    codec, body = (0, batch.text) if batch.frame is None else (1, batch.frame)
    return batch.first_offset, batch.count, batch.term, batch.ingested_at, codec, body


def storage_error(exc: Exception) -> ContextError:
    """What SQLite's refusal means for the sender."""
    text = str(exc)
    if "full" in text or "disk I/O" in text or isinstance(exc, MemoryError):
        return StorageFull(f"the log could not be written ({text}); nothing was stored")
    return ContextError(f"the log failed: {text}")
