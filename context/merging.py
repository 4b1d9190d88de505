"""Drafts that became durable together, as few batches.

What is done for every batch, from the row in the log to the frame for a subscriber, is then done
once for all that shared a commit. Offsets, lines and receipts are what they would be apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from context.block import joined_ends
from context.entries import compressed
from context.heads import Heads
from context.items import Batch
from context.ports import Draft

MERGED_ITEMS = 1000  # at most so many, unless one draft alone has more
MERGED_BYTES = 256 << 10


def merged(drafts: Iterable[Draft], first: int, *, term: int, now: float) -> list[Batch]:
    """The batches that drafts become, from offset `first` on, with their frames where that pays."""
    found = []
    for run in _runs(drafts):
        found.append(_batch(run, first, term, now))
        first = found[-1].last_offset + 1
    return found


def _runs(drafts: Iterable[Draft]) -> Iterator[list[Draft]]:
    """Neighbours that one batch can hold: alike in what is known of them, and not too much."""
    run: list[Draft] = []
    count = size = 0
    for draft in drafts:
        count, size = count + draft.count, size + len(draft.text)
        if run and (
            count > MERGED_ITEMS
            or size > MERGED_BYTES
            or draft.apart
            or run[-1].apart
            or (draft.heads is None) != (run[-1].heads is None)
        ):
            yield run
            run, count, size = [], draft.count, len(draft.text)
        run.append(draft)
    if run:
        yield run


def _batch(run: Sequence[Draft], first: int, term: int, now: float) -> Batch:
    count, text = sum(draft.count for draft in run), b"".join(draft.text for draft in run)
    known = [draft.heads for draft in run if draft.heads]
    heads = Heads.join(known) if known else None
    return Batch(first, count, now, term, text, heads, compressed(text), joined_ends(run))
