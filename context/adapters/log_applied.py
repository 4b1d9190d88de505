"""The copy of a replicated log on one node: the embedded log, filled by the stream's messages.

Beside the embedded log's layout: `applied` in `meta` is the sequence of the newest message that is
in here, written in the same transaction. Commits need no fsync of their own: the stream is what
survives, and what the copy lost with the power it applies again.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from context.adapters.log_sqlite import SqliteLog, storage_error
from context.entries import Entry
from context.errors import ContextError, ForeignHistory
from context.ports import Draft, Receipt


class AppliedLog(SqliteLog):
    """Reads as the embedded log; written by `apply` only, by one thread at a time."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._db.execute("PRAGMA synchronous=NORMAL")
        row = self._db.execute("SELECT value FROM meta WHERE key = 'applied'").fetchone()
        self.applied: int = row[0] if row else 0

    @property
    def term(self) -> int:
        """Highest term that has written."""
        return self._term

    @property
    def next_offset(self) -> int:
        """Offset of the next item."""
        return self._next

    def keys(self) -> dict[int, tuple[str, bytes, int]]:
        """Idempotency key, digest and count of the drafts that had one, by first offset."""
        found = self._db.execute("SELECT first_offset, key, digest, count FROM keys")
        return {row[0]: (row[1], row[2], row[3]) for row in found}

    def adopt(self, epoch: str) -> None:
        """Become a copy of a cluster's log; raises ForeignHistory where another one is in here."""
        if epoch == self.epoch:
            return
        if self._next:
            raise ForeignHistory(
                f"{self._path} holds {self._next} items of history {self.epoch}, the cluster's is "
                f"{epoch}: move the data folder aside to join with an empty one"
            )
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (epoch,))
        self.epoch = epoch

    def known(self, draft: Draft, now: float) -> Receipt | ContextError | None:
        """What became of a draft with this idempotency key; None where it is new."""
        return self._known(draft, now) if draft.key is not None else None

    def apply(self, sequence: int, term: int, entry: Entry) -> None:
        """Take in the items of a message, all or none; raises StorageFull, ContextError."""
        rows, keys = [], []
        for offset, part in entry.placed():
            at = entry.ingested_at if part.at is None else part.at
            rows.append((offset, part.count, term, at, part.codec, part.body))
            if part.key is not None:
                keys.append((part.key, part.digest, offset, part.count, term, at))
        self._transact(sequence, term, rows, keys, entry.ingested_at)
        self._next = entry.first_offset + entry.count

    def note(self, sequence: int, term: int) -> None:
        """Everything up to here is in, or concerns others."""
        if sequence > self.applied or term > self._term:
            self._transact(sequence, term, (), (), None)

    def _transact(
        self,
        sequence: int,
        term: int,
        rows: Sequence[tuple[int, int, int, float, int, bytes]],
        keys: Sequence[tuple[str, bytes, int, int, int, float]],
        now: float | None,
    ) -> None:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO batches VALUES (?,?,?,?,?,?)", rows)
            db.executemany("INSERT OR REPLACE INTO keys VALUES (?,?,?,?,?,?)", keys)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('applied', ?)", (sequence,))
            if term > self._term:
                db.execute("UPDATE meta SET value = ? WHERE key = 'term'", (term,))
            if now is not None:
                self._prune_keys(now)
            db.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as exc:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise storage_error(exc) from exc
        self.applied, self._term = sequence, max(term, self._term)
