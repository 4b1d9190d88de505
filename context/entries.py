"""Items as the payload of one message of the replicated stream: a MessagePack array.

    [first_offset, ingested_at, [[count, codec, body, key, digest, at, columns], ...], schema]

One part a draft, their offsets dense from `first_offset`. `body` holds the lines (`Batch.text`), as
they are with codec 0, as one zstd frame with codec 1: a follower stores it as it came. `key` is
the idempotency key or nil, `digest` that of the body which came with it. `at` is nil, or the time
of this part where it was stored at another one: history that a founder brings along. `columns`
are those of the lines (`context.packed.carry`) as one zstd frame, so that followers read no JSON;
empty or missing where the writer had none at hand. `schema` is the version in which the items are
written (`context.casting`), 1 where it is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from context.block import line_ends
from context.casting import FIRST, Casting
from context.compression import compress, decompress
from context.heads import Heads
from context.packed import BadColumns, carried, carry
from context.ports import Draft

COMPRESS_FROM = 512  # bytes; below, zstd gains nothing
LONGEST_TEXT = 128 << 20  # bytes of lines in one part: what no sender can reach


class EntryError(ValueError):
    """Not the payload of items."""


class Part(msgspec.Struct, array_like=True, frozen=True):
    """One draft, packed."""

    count: int
    codec: int
    body: bytes
    key: str | None = None
    digest: bytes = b""
    at: float | None = None
    columns: bytes = b""

    def heads(self) -> Heads | None:
        """The columns of the lines, None where they do not come along; raises EntryError."""
        if not self.columns:
            return None
        try:
            plain = decompress(self.columns)
            return carried(plain, self.count)
        except (zstandard.ZstdError, MemoryError, BadColumns) as exc:
            raise EntryError(f"columns that do not fit: {exc}") from exc

    def lines(self) -> bytes:
        """The lines as in `Batch.text`; raises EntryError unless they are `count` lines."""
        return self.ended()[0]

    def ended(self) -> tuple[bytes, NDArray[np.int32]]:
        """The lines as in `Batch.text`, and where each ends; raises as `lines`."""
        text = self.body
        if self.codec:
            try:
                text = decompress(self.body)
            except (zstandard.ZstdError, MemoryError) as exc:
                raise EntryError(f"the lines are not zstd: {exc}") from exc
        ends = line_ends(text)
        if len(ends) != self.count or text[-1:] != b"\n":
            raise EntryError(f"not {self.count} lines")
        return text, ends


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What one message adds to the log."""

    first_offset: int
    ingested_at: float
    parts: list[Part]
    schema: int = FIRST

    @property
    def count(self) -> int:
        """Items in all parts."""
        return sum(part.count for part in self.parts)

    def placed(self) -> Iterator[tuple[int, Part]]:
        """Each part with its first offset."""
        offset = self.first_offset
        for part in self.parts:
            yield offset, part
            offset += part.count


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


def compressed(text: bytes) -> bytes | None:
    """Lines as one zstd frame, None where that does not pay."""
    return compress(text) if len(text) >= COMPRESS_FROM else None


def pack(draft: Draft) -> Part:
    """A draft as it goes into a message."""
    frame = compressed(draft.text)
    codec, body = (0, draft.text) if frame is None else (1, frame)
    columns = compress(carry(draft.heads)) if draft.heads else b""
    return Part(draft.count, codec, body, draft.key, draft.digest, columns=columns)


def encode_entry(
    first_offset: int, ingested_at: float, parts: Sequence[Part], schema: int = FIRST
) -> bytes:
    """The payload."""
    return _encoder.encode(Entry(first_offset, ingested_at, [*parts], schema))


def recast(part: Part, casting: Casting, have: int, want: int) -> Part:
    """A part in another schema; raises EntryError. What came with its key stays."""
    if not casting.casts(have, want):
        return part
    text = part.lines()
    cast = casting.lines(text, have, want)
    if cast is text:
        return part
    made = pack(Draft(part.count, cast))
    return msgspec.structs.replace(part, codec=made.codec, body=made.body, columns=b"")


def decode_entry(payload: bytes) -> Entry:
    """Read a payload; raises EntryError for anything else. `Part.lines` looks at the lines."""
    try:
        entry = _decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise EntryError(str(exc)) from exc
    if not 0 <= entry.first_offset < 1 << 62 or not entry.parts:
        raise EntryError(f"{len(entry.parts)} parts at offset {entry.first_offset}")
    for part in entry.parts:
        _check(part)
    return entry


def _check(part: Part) -> None:
    if part.codec not in (0, 1):
        raise EntryError(f"codec {part.codec}")
    if part.codec:
        size = _told_size(part.body)
        if not 0 <= size <= LONGEST_TEXT:
            raise EntryError(f"a part of {size} bytes")
    if part.columns and not 0 <= _told_size(part.columns) <= LONGEST_TEXT:
        raise EntryError("columns of unknown size")
    if part.count < 1:
        raise EntryError(f"a part of {part.count} items")


def _told_size(frame: bytes) -> int:
    """Bytes in a frame, as it says itself; -1 where it does not."""
    try:
        return zstandard.frame_content_size(frame)
    except zstandard.ZstdError as exc:
        raise EntryError(str(exc)) from exc
