"""What the components need to keep small state, stated as promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Versioned:
    """One stored value. `version` is 1 at its first write and grows by 1 with each."""

    key: str
    version: int
    value: bytes
    updated_at: float  # unix seconds, as given by the writer


class StateStore(Protocol):
    """Small versioned values by kind and key, such as registered types or packed contexts.

    Every call may come from any thread. What `put`, `delete` and `prune` did is durable when they
    return: it survives `kill -9` and power loss.
    """

    def get(self, kind: str, key: str) -> Versioned | None:
        """The value now, or None."""

    def put(
        self, kind: str, key: str, value: bytes, *, expected: int | None = None, now: float
    ) -> int:
        """Store the value and return its new version.

        With `expected`, only if that is the version now (0: there must be none), else
        VersionConflict. A key that was deleted begins again at version 1.
        """

    def delete(self, kind: str, key: str) -> bool:
        """Remove the value; False if there was none."""

    def list(self, kind: str, *, limit: int, newest_first: bool = True) -> list[Versioned]:
        """Up to `limit` values in the order of their last writes."""

    def prune(self, kind: str, *, keep_newest: int) -> int:
        """Remove all but the last written values and return how many are gone."""


class Stream(Protocol):
    """Messages in one order, each stored by a majority before it is acknowledged.

    Sequences begin at 1 and are dense. Every call may come from any thread but the event loop's.
    """

    def append(self, message: bytes, *, expected: int) -> int:
        """Store a message right behind the sequence `expected` and return its own.

        Raises WrongSequence where another message is there already, StreamDown where it was
        certainly not stored, OutcomeUnknown where it may have been, or may still be.
        """

    def read(self, after: int) -> list[tuple[int, bytes]]:
        """Acknowledged messages behind a sequence, in order, some at a time; [] at the end.

        What was acknowledged a moment ago may not be there yet. Raises HistoryGone where
        the message that follows was dropped, StreamDown.
        """

    def tail(self) -> int:
        """Newest sequence, as the stream's leader knows it; raises StreamDown."""
