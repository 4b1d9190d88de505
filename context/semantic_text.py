"""What of an item is worth searching by meaning: the sentences in it, without their numbers.

Prices and machine samples have none. Sentences that differ in numbers alone share one template, so
that a million repeats of a log line cost one vector.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

SILENT = frozenset({"trading_data", "system_health"})  # types without sentences
FIELDS = (
    "title", "context_meaning", "reasoning", "message", "text", "log",
    "summary", "description", "reason", "note",
)  # fmt: skip
MAX_CHARS = 1000  # some 250 tokens: the model reads no further
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W\d_]{3}")
# Ids in hex that hold a digit, with or without dashes; then numbers, dates and times.
_NUMBER = re.compile(
    r"\b(?=[a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]+)*\b|\d+(?:[.,:]\d+)*", re.IGNORECASE
)


class Passage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An item's sentences as they are embedded, and what a search may filter it by."""

    template: str
    offset: int
    timestamp: float
    type: str
    source: str
    symbol: str | None


# One object for `data` of every type; a field that is not text does not count.
_Data = msgspec.defstruct("_Data", [(name, Any, None) for name in (*FIELDS, "symbol")], gc=False)


class _Line(msgspec.Struct, gc=False):
    type: str
    source: str
    timestamp: float
    data: _Data  # type: ignore[valid-type]


_decode = msgspec.json.Decoder(_Line, strict=False).decode


def passage_of(offset: int, line: bytes) -> Passage | None:
    """The sentences of a stored line; None where it holds nothing worth a vector."""
    item = _decode(line)
    if item.type in SILENT:
        return None
    texts = (getattr(item.data, name) for name in FIELDS)
    template = template_of(". ".join(text for text in texts if isinstance(text, str)))
    if not _WORD.search(template):
        return None
    symbol = item.data.symbol  # type: ignore[attr-defined]
    return Passage(
        template,
        offset,
        item.timestamp,
        item.type,
        item.source,
        symbol if isinstance(symbol, str) else None,
    )


def template_of(text: str) -> str:
    """Text in lower case, spaces joined, each number or id written as 0, cut to 1000 characters."""
    plain = _SPACE.sub(" ", text[: 2 * MAX_CHARS]).strip().lower()
    return _NUMBER.sub("0", plain)[:MAX_CHARS]
