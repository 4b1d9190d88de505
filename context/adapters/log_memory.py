"""The Log port in memory: for tests and for components that need no durability."""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import nullcontext

from context.errors import FencedOut, KeyReused
from context.items import Batch
from context.merging import merged
from context.ports import Appended, Draft, Outcome, Receipt

KEY_LIFETIME_S = 24 * 3600.0


class MemoryLog:
    """Keeps whole batches in a list; nothing survives the process."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self.lock = nullcontext()  # one thread appends, and nothing is applied beside it
        self._term = self._next = 0
        self._batches: list[Batch] = []
        self._keys: dict[str, tuple[bytes, Receipt, float]] = {}

    def append(self, drafts: Sequence[Draft], *, term: int, now: float) -> Appended:
        """See `context.ports.Log`."""
        if term < self._term:
            raise FencedOut(f"term {term} is older than {self._term}; find the leader again")
        self._term = term
        first, stored = self._next, list[Draft]()
        outcomes = [self._append_one(draft, now, stored) for draft in drafts]
        made = merged(stored, first, term=term, now=now)
        self._batches += made
        return Appended(outcomes, made)

    def read(self, after: int, *, max_bytes: int) -> list[Batch]:
        """See `context.ports.Log`."""
        start = bisect_right(self._batches, after, key=lambda batch: batch.last_offset)
        batches, size = [], 0
        for batch in self._batches[start:]:
            batches.append(batch)
            size += len(batch.text)
            if size >= max_bytes:
                break
        return batches

    def bounds(self) -> tuple[int, int]:
        """See `context.ports.Log`."""
        if not self._batches:
            return 0, -1
        return self._batches[0].first_offset, self._batches[-1].last_offset

    def terms(self, first: int, last: int) -> list[tuple[int, int]]:
        """See `context.ports.Log`."""
        found: dict[int, int] = {}
        for batch in self._batches:
            if first <= batch.first_offset <= last:
                found.setdefault(batch.term, batch.first_offset)
        return [(offset, term) for term, offset in found.items()]

    def trim(self, through: int) -> None:
        """See `context.ports.Log`."""
        kept = bisect_right(self._batches, through, key=lambda batch: batch.last_offset)
        del self._batches[: min(kept, len(self._batches) - 1)]

    def _append_one(self, draft: Draft, now: float, stored: list[Draft]) -> Outcome:
        if draft.key is not None and draft.key in self._keys:
            digest, first, at = self._keys[draft.key]
            if at > now - KEY_LIFETIME_S:
                if digest != draft.digest:
                    return KeyReused(f"Idempotency-Key {draft.key!r} was used with another body")
                return Receipt(first.first_offset, first.count, first.term, replayed=True)
        receipt = Receipt(self._next, draft.count, self._term)
        self._next += draft.count
        stored.append(draft)
        if draft.key is not None:
            self._keys[draft.key] = (draft.digest, receipt, now)
        return receipt
