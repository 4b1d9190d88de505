"""A single node's history becomes the beginning of a cluster's stream.

The founder keeps its copies: nothing is applied again, they only learn how far the stream is. A
term in the stream never falls, as it never did in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

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
    for batches in _groups(_all(read)):
        parts = [_pack(batch, keys) for batch in batches]
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


def _pack(batch: Batch, keys: Keys) -> Part:
    key, digest, count = keys.get(batch.first_offset, (None, b"", 0))
    if count != batch.count:
        key, digest = None, b""
    part = pack(Draft(batch.count, batch.text, key, digest))
    return msgspec.structs.replace(part, at=batch.ingested_at)
