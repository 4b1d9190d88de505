"""The log of a cluster: appended through the replicated stream, read from this node's copy.

What a message holds is `context.entries`; order, terms and unknown outcomes are the business of
`shared_storage.adapters.replica`. `on_applied` hears of all items in their order, whoever wrote
them, in the thread that applied them, before the writer is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from context import errors
from context.adapters.log_applied import AppliedLog
from context.adapters.log_sqlite import storage_error
from context.casting import CASTING, FIRST, Casting
from context.entries import Entry, EntryError, Part, decode_entry, encode_entry, pack, recast
from context.heads import Heads
from context.items import Batch
from context.ports import Appended, Draft, Outcome, Receipt
from shared_storage.adapters.replica import Replica
from shared_storage.envelope import Envelope, Kind
from shared_storage.errors import (
    BadMessage,
    CopyFailed,
    NewerMessage,
    OutcomeUnknown,
    StaleTerm,
    StorageError,
    StreamDown,
)

_Lines = tuple[bytes, Heads | None, NDArray[np.int32] | None]
MAX_MESSAGE_BYTES = (8 << 20) - 4096  # the engine's limit, less what is around the bodies


class ItemsApplier:
    """Takes messages with items into the local copy."""

    def __init__(self, copy: AppliedLog, casting: Casting = CASTING, schema: int = FIRST) -> None:
        """`schema` is the version of items here, whatever the one in which they are written."""
        self.copy, self.casting, self.schema = copy, casting, schema
        self.on_applied: Callable[[Sequence[Batch]], None] = lambda batches: None
        self._written: dict[int, tuple[Part, Draft]] = {}  # by offset: what is being written now

    @property
    def applied(self) -> int:
        """Sequence of the newest message in the copy."""
        return self.copy.applied

    def expect(self, drafts: dict[int, tuple[Part, Draft]]) -> None:
        """The lines of these need not be unpacked when they come back."""
        self._written = drafts

    def apply(self, sequence: int, message: Envelope) -> None:
        """Store the items and tell of them; raises BadMessage where it holds none that fit."""
        try:
            entry = self._recast(decode_entry(message.payload))
            lines = [self._lines(offset, part) for offset, part in entry.placed()]
        except EntryError as exc:
            raise BadMessage(f"no items: {exc}") from exc
        if entry.first_offset < self.copy.next_offset:
            raise BadMessage(f"items at {entry.first_offset}, before {self.copy.next_offset}")
        self.copy.apply(sequence, message.term, entry)
        batches = [
            Batch(
                offset,
                part.count,
                entry.ingested_at if part.at is None else part.at,
                message.term,
                text,
                heads,
                part.body if part.codec else None,
                ends,
            )
            for (offset, part), (text, heads, ends) in zip(entry.placed(), lines, strict=True)
        ]
        self.on_applied(batches)

    def note(self, sequence: int) -> None:
        """Everything up to here is in, or concerns others."""
        self.copy.note(sequence, 0)

    def _recast(self, entry: Entry) -> Entry:
        """The entry in this node's schema."""
        if entry.schema == self.schema:
            return entry
        if abs(entry.schema - self.schema) > 1:
            raise NewerMessage(f"items of schema {entry.schema}; this program knows {self.schema}")
        parts = [recast(each, self.casting, entry.schema, self.schema) for each in entry.parts]
        return msgspec.structs.replace(entry, parts=parts, schema=self.schema)

    def _lines(self, offset: int, part: Part) -> _Lines:
        """The lines of a part, their columns and ends where these are at hand."""
        mine = self._written.get(offset)
        if mine is not None and mine[0].body == part.body:
            return mine[1].text, mine[1].heads, mine[1].ends
        text, ends = part.ended()
        return text, part.heads(), ends


class JetStreamLog:
    """The Log port on a replica of the stream and this node's copy of it."""

    def __init__(self, replica: Replica, items: ItemsApplier) -> None:
        self._replica, self._items, self._copy = replica, items, items.copy
        self.epoch, self.lock = replica.epoch, replica.lock
        self.speaks: Callable[[], int] = lambda: items.schema  # what all nodes can read

    def append(self, drafts: Sequence[Draft], *, term: int, now: float) -> Appended:
        """Make drafts durable on a majority; see `context.ports.Log`.

        What was stored is told by `ItemsApplier.on_applied`. Raises also OutcomeUnknown and
        NoMajority.
        """
        packed = [pack(draft) for draft in drafts]
        outcomes: list[Outcome] = []
        while len(outcomes) < len(drafts):
            size, end = 0, len(outcomes)
            while end < len(drafts):
                size += len(packed[end].body) + len(packed[end].columns)
                if size > MAX_MESSAGE_BYTES and end > len(outcomes):
                    break
                end += 1
            chosen = slice(len(outcomes), end)
            try:
                outcomes += self._append(drafts[chosen], packed[chosen], term, now)
            except errors.ContextError as exc:
                if not outcomes:
                    raise
                outcomes += [exc] * (len(drafts) - len(outcomes))
        return Appended(outcomes, [])

    def read(self, after: int, *, max_bytes: int) -> list[Batch]:
        """Batches of this node's copy; see `context.ports.Log`."""
        return self._copy.read(after, max_bytes=max_bytes)

    def bounds(self) -> tuple[int, int]:
        """Oldest and newest offset of this node's copy."""
        return self._copy.bounds()

    def terms(self, first: int, last: int) -> list[tuple[int, int]]:
        """Terms that wrote a range; see `context.ports.Log`."""
        return self._copy.terms(first, last)

    def trim(self, through: int) -> None:
        """Drop batches of this node's copy; see `context.ports.Log`."""
        self._copy.trim(through)

    def close(self) -> None:
        """Close the copy."""
        with self._replica.lock:
            self._copy.close()

    def _append(
        self, drafts: Sequence[Draft], packed: Sequence[Part], term: int, now: float
    ) -> list[Outcome]:
        outcomes: list[Outcome] = []

        def decide() -> bytes | None:
            chosen = self._decide(drafts, packed, term, now)
            outcomes[:] = chosen.outcomes
            self._items.expect(chosen.drafts)
            if not chosen.parts:
                return None
            return self._encode(now, chosen.parts)

        with self._replica.lock:
            try:
                self._replica.append(Kind.ITEMS, term, decide)
            except StorageError as exc:
                raise _told(exc) from exc
            finally:
                self._items.expect({})
        return outcomes

    def _encode(self, now: float, parts: Sequence[Part]) -> bytes:
        """The payload, in a schema that the oldest neighbour can read."""
        schema, own = self.speaks(), self._items.schema
        told = [recast(part, self._items.casting, own, schema) for part in parts]
        return encode_entry(self._copy.next_offset, now, told, schema)

    def _decide(
        self, drafts: Sequence[Draft], packed: Sequence[Part], term: int, now: float
    ) -> _Chosen:
        """What to write of these drafts, and what each is answered once that is stored."""
        chosen, keys = _Chosen(), dict[str, tuple[bytes, Receipt]]()
        offset = self._copy.next_offset
        for draft, part in zip(drafts, packed, strict=True):
            known: Outcome | None = self._copy.known(draft, now)
            if known is None and draft.key in keys:
                known = _repeat(draft, *keys[draft.key])
            if known is None and len(part.body) + len(part.columns) > MAX_MESSAGE_BYTES:
                known = errors.BodyTooLarge(
                    f"{len(part.body)} bytes compressed; the cluster takes {MAX_MESSAGE_BYTES} "
                    "in one body"
                )
            if known is not None:
                chosen.outcomes.append(known)
                continue
            receipt = Receipt(offset, draft.count, term)
            chosen.outcomes.append(receipt)
            chosen.parts.append(part)
            chosen.drafts[offset] = part, draft
            if draft.key is not None:
                keys[draft.key] = (draft.digest, receipt)
            offset += draft.count
        return chosen


class _Chosen:
    """One way to write a group."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.parts: list[Part] = []
        self.drafts: dict[int, tuple[Part, Draft]] = {}


def _repeat(draft: Draft, digest: bytes, first: Receipt) -> Outcome:
    if digest != draft.digest:
        return errors.KeyReused(f"Idempotency-Key {draft.key!r} was used with another body before")
    return replace(first, replayed=True)


def _told(exc: StorageError) -> errors.ContextError:
    match exc:
        case StaleTerm():
            return errors.FencedOut(exc.detail)
        case OutcomeUnknown():
            return errors.OutcomeUnknown(exc.detail)
        case StreamDown():
            return errors.NoMajority(exc.detail)
        case CopyFailed():
            return storage_error(exc)
    return errors.ContextError(exc.detail)
