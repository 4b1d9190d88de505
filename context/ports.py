"""What `context` needs from the outside, stated as promises."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from context.heads import Heads
from context.items import Batch
from context.sealed import Head


@dataclass(frozen=True, slots=True)
class Draft:
    """Validated items on their way into the log."""

    count: int
    text: bytes  # lines as in Batch.text
    key: str | None = None  # idempotency key
    digest: bytes = b""  # of the body, to tell a repeat from a reused key
    heads: Heads | None = None  # of the text, to spare the index making them
    # Where each line ends, to spare looking for that.
    ends: NDArray[np.int32] | None = field(default=None, compare=False)
    apart: bool = False  # shares no batch with others, so that it is known by its batch


@dataclass(frozen=True, slots=True)
class Receipt:
    """Acknowledgement of one draft: its items are durable."""

    first_offset: int
    count: int
    term: int
    replayed: bool = False

    @property
    def last_offset(self) -> int:
        """Offset of the newest item acknowledged."""
        return self.first_offset + self.count - 1


Outcome = Receipt | Exception  # what became of one draft


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of drafts that were appended together."""

    outcomes: list[Outcome]  # one a draft
    # What was stored, in order: several drafts may be one batch. Empty where a log tells of that
    # in another way, whoever wrote it.
    batches: list[Batch]


class Log(Protocol):
    """Append-only items, ordered by offset. A new `epoch` means history was lost."""

    epoch: str

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while items are applied; who holds it knows that none are."""

    def append(self, drafts: Sequence[Draft], *, term: int, now: float) -> Appended:
        """Make all drafts durable in one step and tell what became of them.

        A draft whose idempotency key was stored within 24 h is not stored again: its receipt is
        the first one with `replayed=True`; with another body it is KeyReused, and the other drafts
        go on. Raises FencedOut if a higher term has written, StorageFull if the disk took nothing.
        """

    def read(self, after: int, *, max_bytes: int) -> list[Batch]:
        """Whole batches holding items with offset > `after`, in order, at least one if any."""

    def bounds(self) -> tuple[int, int]:
        """Oldest offset still here and newest offset; (0, -1) where the log is empty."""

    def terms(self, first: int, last: int) -> list[tuple[int, int]]:
        """The terms that wrote the batches from offset `first` to `last`, each with its first."""

    def trim(self, through: int) -> None:
        """Drop batches whose items all lie at or below an offset: they are kept elsewhere.

        The newest batch always stays, so that the log knows where it ends.
        """


class BlockStore(Protocol):
    """Sealed blocks (`context.sealed`), each known by its first offset."""

    def put(self, blocks: Sequence[bytes]) -> None:
        """Make blocks durable, in one step; one of the same first offset takes the former's place.

        Raises StorageFull, and then holds what it held before.
        """

    def list(self) -> list[Head]:
        """Heads of all blocks, ascending by first offset; those that cannot be read are missing."""

    def get(self, first: int) -> bytes:
        """The block as it was put, unless damaged since; raises NotFound."""

    def delete(self, firsts: Collection[int]) -> None:
        """Let go of blocks; unknown ones are left out."""

    def set_aside(self, first: int) -> str:
        """Let go of a damaged block but keep its bytes for people; tells where."""
