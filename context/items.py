"""Items, cursors and batches: the words that everything else is written in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from context.errors import BadCursor
from context.heads import Heads

MAX_ITEM_BYTES = 256 * 1024
OPENING = b'{"type":"'  # of every line
_CURSOR = re.compile(r"([a-z0-9]{1,32}):(-1|0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """The last item seen; reading continues after it. Offset -1 is the beginning."""

    epoch: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read `"<epoch>:<offset>"`; raises BadCursor naming the text."""
        found = _CURSOR.fullmatch(text)
        if not found:
            raise BadCursor(f'cursor {text[:80]!r} is not "<epoch>:<offset>"')
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return f"{self.epoch}:{self.offset}"


class Item(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One piece of context as its producer sends it; field order is the order of a line."""

    type: str
    source: str = "unknown"
    timestamp: int | float | None = None
    data: dict[str, Any]
    metadata: dict[str, Any] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that became durable together.

    `text` holds one *line* an item (compact JSON of type, source, timestamp, data, metadata, in
    this order), each ended by a newline. Lines never contain a raw newline: JSON escapes it.
    """

    first_offset: int
    count: int
    ingested_at: float  # unix seconds, the same for the whole batch
    term: int
    text: bytes
    heads: Heads | None = field(default=None, compare=False, repr=False)  # where at hand
    # The text as one zstd frame that tells its size, where at hand.
    frame: bytes | None = field(default=None, compare=False, repr=False)
    # Where each line ends, before its newline, (items,), where at hand.
    ends: NDArray[np.int32] | None = field(default=None, compare=False, repr=False)

    @property
    def last_offset(self) -> int:
        """Offset of the newest item of the batch."""
        return self.first_offset + self.count - 1


def encode_item(epoch: str, offset: int, ingested_at: float, line: bytes) -> bytes:
    """Full item JSON from a stored line (no newline), without decoding the line again."""
    head = f'{{"id":"{epoch}:{offset}","offset":{offset},"ingested_at":{ingested_at!r},'
    return head.encode() + line[1:]
