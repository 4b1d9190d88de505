"""Items as NDJSON, CSV or an Arrow stream, piece by piece: `head`, any number of rows, `tail`.

The columns of CSV and Arrow, in this order: id, offset, type, source, timestamp, ingested_at,
symbol, price, data, metadata. `symbol` is `data.symbol` where that is text and `price` is
`data.price` where that is a number; `data` and `metadata` are JSON text as stored.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from context.items import encode_item

COLUMNS = (
    "id offset type source timestamp ingested_at symbol price data metadata".split()  # noqa: SIM905
)
Items = Sequence[tuple[int, float, bytes]]  # (offset, ingested_at, line), as read_forward gives

_NONE = msgspec.Raw(b"")


class Line(msgspec.Struct, gc=False):
    """A line taken apart; numbers and objects stay the JSON text that they are."""

    type: str
    source: str
    timestamp: msgspec.Raw
    data: msgspec.Raw
    metadata: msgspec.Raw = _NONE


class _Known(msgspec.Struct, gc=False):
    symbol: Any = None
    price: msgspec.Raw = _NONE


_decode_lines = msgspec.json.Decoder(Line).decode_lines
_decode_known = msgspec.json.Decoder(_Known).decode


class Row(msgspec.Struct, gc=False):
    """One item as columns. Empty bytes stand for what is absent."""

    offset: int
    ingested_at: float
    line: Line
    symbol: str | None
    price: bytes  # JSON number


@dataclass(frozen=True, slots=True)
class Format:
    """How items are written. The whole is `head()`, `rows()` any number of times, `tail`."""

    media: str
    suffix: str
    head: Callable[[], bytes]
    rows: Callable[[str, Items], bytes]  # epoch, items
    tail: bytes = b""


def rows(items: Items) -> list[Row]:
    """The items taken apart."""
    lines = _decode_lines(b"\n".join(line for _, _, line in items))
    return [_row(*item, line) for item, line in zip(items, lines, strict=True)]


def _row(offset: int, ingested_at: float, _: bytes, line: Line) -> Row:
    known = _decode_known(line.data)
    symbol = known.symbol if type(known.symbol) is str else None
    price = bytes(known.price)
    return Row(offset, ingested_at, line, symbol, price if price[:1] in _DIGITS else b"")


_DIGITS = frozenset(bytes([digit]) for digit in b"-0123456789")


def _ndjson(epoch: str, items: Items) -> bytes:
    """Items as the API gives them, one a line."""
    if not items:
        return b""
    return b"\n".join([*(encode_item(epoch, *item) for item in items), b""])


def _csv(epoch: str, items: Items) -> bytes:
    """RFC 4180: CRLF, quotes only where needed. Numbers are written as they were sent.

    Text goes out as it is: a value that begins with `=` or `@` is not altered, and a spreadsheet
    may take it for a formula.
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(
        (
            f"{epoch}:{row.offset}",
            row.offset,
            row.line.type,
            row.line.source,
            str(row.line.timestamp, "ascii"),
            repr(row.ingested_at),
            row.symbol,
            row.price.decode(),
            str(row.line.data, "utf-8"),
            str(row.line.metadata, "utf-8"),
        )
        for row in rows(items)
    )
    return text.getvalue().encode()


NDJSON = Format("application/x-ndjson", "ndjson", lambda: b"", _ndjson)
CSV = Format(
    "text/csv; charset=utf-8; header=present",
    "csv",
    lambda: ",".join(COLUMNS).encode() + b"\r\n",
    _csv,
)
FORMATS = {
    "ndjson": "context.export:NDJSON",
    "csv": "context.export:CSV",
    "arrow": "context.export_arrow:ARROW",
}


def format_named(name: str) -> Format:
    """The format, resolved on use: a node that never exports Arrow never loads it (40 MB)."""
    module, _, attribute = FORMATS[name].partition(":")
    found: Format = getattr(importlib.import_module(module), attribute)
    return found
