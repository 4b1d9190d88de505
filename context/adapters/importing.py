"""A single node's history becomes the beginning of a cluster's stream.

The founder keeps its copies: nothing is applied again, they only learn how far the stream is. A
term in the stream never falls, as it never did in the log.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from context.block import line_ends
from context.casting import FIRST
from context.entries import Part, encode_entry, pack
from context.items import Batch
from context.ports import Draft
from shared_storage.envelope import Envelope, Kind, encode
from shared_storage.ports import Stream

MESSAGE_BYTES = 2 << 20  # of packed lines: large enough to be fast, small enough to flow
Read = Callable[[int], list[Batch]]
Keys = Mapping[int, tuple[str | None, bytes, int]]  # key, digest of the body, count


def import_items(
    stream: Stream,
    read: Read,
    keys: Keys,
    *,
    epoch: str,
    told: Callable[[int], None],
    schema: int = FIRST,
) -> tuple[int, int]:
    """Append all batches to an empty stream; the last sequence, and the newest term.

    `read(after)` gives batches behind an offset, [] at the end; `keys` the idempotency keys that
    still hold, by first offset; `told(offset)` hears how far it is. Raises StreamDown,
    OutcomeUnknown; then the stream has to be made anew.
    """
    sequence, term = stream.tail(), 0
    firsts = sorted(keys)
    for batches in _groups(_all(read)):
        parts = [part for batch in batches for part in _parts(batch, keys, firsts)]
        payload = encode_entry(batches[0].first_offset, batches[0].ingested_at, parts, schema)
        term = batches[0].term
        message = Envelope(Kind.ITEMS, term, sequence, epoch, payload)
        sequence = stream.append(encode(message), expected=sequence)
        told(batches[-1].last_offset)
    return sequence, term


def import_changes(stream: Stream, changes: Iterable[bytes], *, epoch: str, term: int) -> int:
    """Append payloads of changes behind what is there; returns the last sequence."""
    sequence = stream.tail()
    for payload in changes:
        message = Envelope(Kind.STATE, term, sequence, epoch, payload)
        sequence = stream.append(encode(message), expected=sequence)
    return sequence


def _all(read: Read) -> Iterator[Batch]:
    after = -1
    while batches := read(after):
        yield from batches
        after = batches[-1].last_offset


def _groups(batches: Iterable[Batch]) -> Iterator[Sequence[Batch]]:
    """Neighbours that one message can hold: dense, of one term, not too large."""
    group: list[Batch] = []
    size = 0
    for batch in batches:
        last = group[-1] if group else None
        if last and (
            size + len(batch.text) > MESSAGE_BYTES
            or batch.first_offset != last.last_offset + 1
            or batch.term != last.term
        ):
            yield group
            group, size = [], 0
        group.append(batch)
        size += len(batch.text)
    if group:
        yield group


def _parts(batch: Batch, keys: Keys, firsts: Sequence[int]) -> Iterator[Part]:
    """A batch as parts of a message: what came with a key is one of its own."""
    ends, done = line_ends(batch.text), 0
    keyed = firsts[
        bisect_left(firsts, batch.first_offset) : bisect_right(firsts, batch.last_offset)
    ]
    spans = [(first - batch.first_offset, *keys[first]) for first in keyed]
    for begin, key, digest, count in [*spans, (batch.count, None, b"", 0)]:
        if begin < done or begin + count > batch.count:  # not that of these items
            continue
        if begin > done:
            yield _part(batch, ends, done, begin)
        if count:
            yield _part(batch, ends, begin, begin + count, key, digest)
        done = begin + count


def _part(  # noqa: PLR0917
    batch: Batch,
    ends: NDArray[np.int32],
    first: int,
    behind: int,
    key: str | None = None,
    digest: bytes = b"",
) -> Part:
    text = batch.text[int(ends[first - 1]) + 1 if first else 0 : int(ends[behind - 1]) + 1]
    part = pack(Draft(behind - first, text, key, digest))
    return msgspec.structs.replace(part, at=batch.ingested_at)
