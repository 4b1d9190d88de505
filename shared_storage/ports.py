"""What the components need to keep small state, stated as promises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

    def list(
        self, kind: str, *, limit: int, newest_first: bool = True, skip: int = 0
    ) -> list[Versioned]:
        """Up to `limit` values in the order of their last writes, without the first `skip`."""

    def prune(self, kind: str, *, keep_newest: int) -> int:
        """Remove all but the last written values and return how many are gone."""


@dataclass(frozen=True, slots=True, order=True)
class Blob:
    """Bytes by their content: the same bytes are the same blob."""

    digest: str  # SHA-256, 64 of 0-9 and a-f
    size: int  # bytes


class BlobStore(Protocol):
    """Files too large for a StateStore, such as trained models, by the digest of what they hold.

    Every call may come from any thread but the event loop's. Only pieces of a blob are in memory.
    """

    def put(self, pieces: Iterable[bytes], *, expected: str | None = None) -> Blob:
        """Store what the pieces make; durable on return, and nothing is kept of what fails.

        Raises BlobTooLarge beyond the store's bound, BlobDiffers where it is not the expected
        digest, StreamDown, and what `pieces` raises.
        """

    def get(self, digest: str) -> Iterator[bytes]:
        """The pieces; raises NoBlob, BlobDiffers where it was damaged, StreamDown."""

    def delete(self, digest: str) -> bool:
        """Remove it; False if there was none."""

    def list(self) -> Sequence[Blob]:
        """All blobs, by digest."""


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
