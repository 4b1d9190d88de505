"""State of a cluster: written through the replicated stream, read from this node's copy.

The sequence that the copy has applied is a value of its own in the file, of the kind `_replica`,
written in the same transaction as the change.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from pathlib import Path

from shared_storage.adapters.replica import Replica
from shared_storage.adapters.sqlite import SqliteStateStore
from shared_storage.changes import Change, Delete, Prune, Put, decode_change, encode_change
from shared_storage.envelope import Envelope, Kind
from shared_storage.ports import Versioned
from shared_storage.versions import next_version

_OWN = ("_replica", "applied")
_CLUSTER = ("_cluster", "meta")
OnApplied = Callable[[Change], None]


class AppliedState(SqliteStateStore):
    """This node's copy of the state; also the Applier of the stream's changes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        stored = self.get(*_OWN)
        self.applied = stored.version if stored else 0
        self.on_applied: OnApplied = lambda change: None

    def apply(self, sequence: int, message: Envelope) -> None:
        """Take a change in; raises BadMessage where it is none."""
        change = decode_change(message.payload)
        with self._lock, self._db.atomic():
            match change:
                case Put(kind, key, version, value, updated_at):
                    self._write(kind, key, version, value, updated_at)
                case Delete(kind, key):
                    self._db.execute("DELETE FROM state WHERE kind = ? AND key = ?", (kind, key))
                case Prune(kind, keep_newest):
                    self._prune(kind, keep_newest)
            self._write(*_OWN, sequence, b"", 0.0)
        self.applied = sequence
        self.on_applied(change)

    def changes(self) -> Iterator[bytes]:
        """Payloads of the changes that make this state, in the order of the writes of each kind."""
        for kind, *row in self._db.execute(
            "SELECT kind, key, version, value, updated_at FROM state ORDER BY kind, written"
        ).fetchall():
            if kind not in (_OWN[0], _CLUSTER[0]):
                yield encode_change(Put(kind, *row))

    @property
    def cluster(self) -> bytes | None:
        """What this copy knows of the cluster that it is a part of; None for none."""
        stored = self.get(*_CLUSTER)
        return stored.value if stored else None

    def join(self, cluster: bytes) -> None:
        """Remember the cluster, durable on return."""
        self.put(*_CLUSTER, cluster, now=0.0)

    def note(self, sequence: int) -> None:
        """Everything up to here is in, or concerns others."""
        if sequence > self.applied:
            with self._lock, self._db.atomic():
                self._write(*_OWN, sequence, b"", 0.0)
            self.applied = sequence


class ReplicatedState:
    """The StateStore port on a replica of the stream and this node's copy.

    `term` tells the newest term known to this node when it writes. Writing raises also StaleTerm,
    OutcomeUnknown and StreamDown.
    """

    def __init__(self, replica: Replica, copy: AppliedState, term: Callable[[], int]) -> None:
        self._replica, self._copy, self._term = replica, copy, term

    def get(self, kind: str, key: str) -> Versioned | None:
        """The value in this node's copy, or None."""
        return self._copy.get(kind, key)

    def put(
        self, kind: str, key: str, value: bytes, *, expected: int | None = None, now: float
    ) -> int:
        """Store the value; see `shared_storage.ports.StateStore`."""
        written = 0

        def decide() -> Change:
            nonlocal written
            current = self._copy.get(kind, key)
            written = next_version(f"{kind} {key}", current.version if current else 0, expected)
            return Put(kind, key, written, bytes(value), now)

        self._append(decide)
        return written

    def delete(self, kind: str, key: str) -> bool:
        """Remove the value; False if there was none."""
        return self._append(lambda: Delete(kind, key) if self._copy.get(kind, key) else None)

    def list(
        self, kind: str, *, limit: int, newest_first: bool = True, skip: int = 0
    ) -> builtins.list[Versioned]:
        """Up to `limit` values of this node's copy; see `shared_storage.ports.StateStore`."""
        return self._copy.list(kind, limit=limit, newest_first=newest_first, skip=skip)

    def prune(self, kind: str, *, keep_newest: int) -> int:
        """Remove all but the last written values and return how many are gone."""
        gone = 0

        def decide() -> Change | None:
            nonlocal gone
            gone = max(0, self._copy.count(kind) - keep_newest)
            return Prune(kind, keep_newest) if gone else None

        self._append(decide)
        return gone

    def _append(self, decide: Callable[[], Change | None]) -> bool:
        """Whether there was something to write."""
        wrote = False

        def payload() -> bytes | None:
            nonlocal wrote
            change = decide()
            wrote = change is not None
            return None if change is None else encode_change(change)

        self._replica.append(Kind.STATE, self._term(), payload)
        return wrote
