"""From a request body to validated lines: all items or none, and an error that names the item.

The fast path decodes, checks and encodes whole chunks in C. Only when something is wrong are the
items looked at one by one to say what and where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from context.errors import FieldError, InvalidItem, InvalidJson
from context.heads import Heads
from context.items import MAX_ITEM_BYTES, Item
from context.plain import LATEST, read
from context.tidy import one_line, tidy, unescaped
from context.types import Types

MAX_ERRORS = 20
CHUNK_BYTES = 256 * 1024  # one C call holds the interpreter; this bounds it to about 2 ms

MAX_RAW_BYTES = 8 * MAX_ITEM_BYTES  # of one item as sent, with its escapes and white space
_LONG_BYTES = 4096  # from here on numpy counts newlines quicker than `bytes` does

_decode_item = msgspec.json.Decoder(Item)
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_NAMED = re.compile(r"(?:missing required|contains unknown) field `([^`]*)`")


_ABSENT = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class Lines:
    """Checked items as the log keeps them."""

    count: int
    text: bytes
    heads: Heads | None = None  # None where so few are made quicker with those of others
    # Where each line ends, before its newline, where at hand.
    ends: NDArray[np.int32] | None = field(default=None, compare=False)
    # Whether an object in there may have a key `chain`, which is worth a search.
    may_chain: bool = field(default=True, compare=False)


class _Sent(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An item of which only the outside is decoded; field order is the order of a line."""

    type: str
    source: str = "unknown"
    timestamp: msgspec.Raw = _ABSENT
    data: msgspec.Raw
    metadata: msgspec.Raw | UnsetType = UNSET


_decode_sent = msgspec.json.Decoder(_Sent).decode


def parse_json(body: bytes, types: Types, *, now: float) -> Lines:
    """Lines of a body holding one item or an array of items.

    Raises
    ------
    InvalidJson
        The body is not JSON at all.
    InvalidItem
        An item is refused; `errors` tells which and why.
    """
    start = body.lstrip(b" \t\r\n")[:1]
    try:
        if start == b"{":
            if len(body) > MAX_RAW_BYTES:
                raise refused([_too_long(0)])
            return _line(body, types, now)
        if start != b"[":
            raise InvalidJson("the body must be one item (a JSON object) or an array of items")
        body = one_line(body) if b"\n" in body else body
        return _join(_array_chunks(_decode_raws.decode(body)), types, now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _diagnose(_split_array(body, exc), types) from exc


def parse_ndjson(body: bytes, types: Types, *, now: float) -> Lines:
    """Lines of a body with one item a line; blank lines are skipped.

    Raises InvalidItem as `parse_json`; a line that is not JSON is an invalid item.
    """
    try:
        return _join(_ndjson_chunks(body), types, now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        pieces = [line for line in body.split(b"\n") if line.strip()]
        raise _diagnose(pieces, types) from exc


def parse_usual(
    bodies: Sequence[bytes], types: Types, *, now: float
) -> tuple[Lines, list[int]] | None:
    """Lines of NDJSON bodies, one behind the other, and how many items each has.

    None unless all of them are as they usually come and good: then each is to be read by itself.
    """
    ended = [body if body.endswith(b"\n") else body + b"\n" for body in bodies]
    try:
        lines = _read(b"".join(ended), types, now)
    except UnicodeDecodeError:
        return None
    # What is usual is one item a line.
    return (lines, list(map(_newlines, ended))) if lines else None


def _newlines(text: bytes) -> int:
    if len(text) < _LONG_BYTES:
        return text.count(b"\n")
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")))


def encode_checked(items: Sequence[Item], types: Types, *, now: float) -> Lines:
    """Lines of items made inside the node; the same rules hold."""
    for item in items:
        if item.timestamp is None:
            item.timestamp = now
    text = _encoder.encode_lines(items)
    return _read(text, types, now) or _checked(text, types, first=0)


def prepare() -> None:
    """Load the compiled loops, or compile them where no other start has: several seconds."""
    one_line(b" 1")
    read(b'{"type":"note","data":{}}', Types(), now=0.0)


def _lines(sent: bytes, types: Types, *, now: float, first: int) -> Lines:
    """Lines of NDJSON that is not all blank; `first` is the index of its first item."""
    lines = _read(sent, types, now)
    if lines:
        return lines
    tidied = tidy(sent)
    text = tidied.text
    if tidied.unusual:
        pieces: list[bytes] = []
        at = 0
        for begin, end, odd in tidied.unusual:
            pieces += text[at:begin], _rewritten(text[begin:end], now, odd=odd)
            at = end + 1
        text = b"".join((*pieces, text[at:]))
    text = text if text.endswith(b"\n") else text + b"\n"
    return _read(text, types, now) or _checked(text, types, first)


def _read(text: bytes, types: Types, now: float) -> Lines | None:
    """Lines of items that are as they usually come, all of them."""
    found = read(text, types, now=now)
    if found is None or (len(text) > MAX_ITEM_BYTES and _oversized(found.text, 0)):
        return None
    return Lines(len(found.ends), *found)


def _line(body: bytes, types: Types, now: float) -> Lines:
    """The line of one item. What pays for a thousand, columns and compiled scans, does not here."""
    item, sent = _decode_item.decode(body), _decode_sent(body)
    if item.timestamp is None:
        item.timestamp, sent.timestamp = now, _raw(now)
    line = msgspec.json.format(_encoder.encode(sent), indent=-1)
    line = unescaped(line) if b"\\" in line else line
    errors = _oversized(line, 0) if len(line) > MAX_ITEM_BYTES else []
    problem = types.check(item.type, item.data) or _timestamp(item.timestamp or 0)
    if problem:
        errors.append({"index": 0, "field": problem[0], "message": problem[1]})
    if errors:
        raise refused(errors)
    return Lines(1, line + b"\n")


def _raw(number: float) -> msgspec.Raw:
    return msgspec.Raw(_encoder.encode(number))


def _rewritten(line: bytes, now: float, *, odd: bool) -> bytes:
    """The line, with its newline, of an item that was sent in another form; empty if blank."""
    if not line or line.isspace():
        return b""
    if odd:
        _decode_item.decode(line)  # `Raw` would let pass what is not finite
    sent = _decode_sent(line)
    if sent.timestamp == _ABSENT:
        sent.timestamp = _raw(now)
    made = _encoder.encode(sent)
    return (unescaped(made) if odd else made) + b"\n"


def _checked(text: bytes, types: Types, first: int) -> Lines:
    """Lines with their heads, item by item. `first` is the index of the first one."""
    text.decode()
    errors = _oversized(text, first) if len(text) > MAX_ITEM_BYTES else []
    errors = [*islice(_errors(text, types, first), MAX_ERRORS), *errors]
    if errors:
        raise refused(errors)
    heads = Heads.read(text)
    return Lines(len(heads.timestamps), text, heads)


def _errors(text: bytes, types: Types, first: int) -> Iterator[FieldError]:
    for index, item in enumerate(_decode_item.decode_lines(text), first):
        problem = types.check(item.type, item.data) or _timestamp(item.timestamp or 0)
        if problem:
            yield {"index": index, "field": problem[0], "message": problem[1]}


def _too_long(index: int) -> FieldError:
    message = f"is too long: at most {MAX_RAW_BYTES} bytes are read of one item"
    return {"index": index, "field": "", "message": message}


def _timestamp(value: float) -> tuple[str, str] | None:
    if -LATEST <= value <= LATEST:
        return None
    return "timestamp", f"must be unix seconds, got {str(value)[:40]}: are these milliseconds?"


def _oversized(text: bytes, first: int) -> list[FieldError]:
    return [
        {
            "index": first + i,
            "field": "",
            "message": f"is {len(line)} bytes encoded; at most {MAX_ITEM_BYTES} are allowed",
        }
        for i, line in enumerate(text.split(b"\n"))
        if len(line) > MAX_ITEM_BYTES
    ]


def refused(errors: Sequence[FieldError]) -> InvalidItem:
    """The 422 for these errors; its sentence tells the first."""
    first = errors[0]
    where = f"item {first['index']}" + (f", field {first['field']}" if first["field"] else "")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidItem(f"{where}: {first['message']}{more}; nothing was stored", errors)


def _join(chunks: Iterable[bytes], types: Types, now: float) -> Lines:
    parts: list[Lines] = []
    count = 0
    for chunk in chunks:
        parts.append(_lines(chunk, types, now=now, first=count))
        count += parts[-1].count
    if not parts:
        raise InvalidItem("the batch is empty: send at least one item")
    if len(parts) == 1:
        return parts[0]
    return Lines(
        count,
        b"".join(p.text for p in parts),
        Heads.join([part.heads for part in parts if part.heads]),
        may_chain=any(part.may_chain for part in parts),
    )


def _ndjson_chunks(body: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(body):
        end = body.find(b"\n", min(start + CHUNK_BYTES, len(body) - 1)) + 1 or len(body)
        if end - start > MAX_RAW_BYTES:  # one line fills it; decoding it would stop everything
            raise refused([_too_long(body.count(b"\n", 0, start + CHUNK_BYTES))])
        chunk = body[start:end]
        if not chunk.isspace():
            yield chunk
        start = end


def _array_chunks(raws: Sequence[msgspec.Raw]) -> Iterator[bytes]:
    chunk: list[bytes] = []
    size = 0
    for end, raw in enumerate(raws, 1):
        chunk.append(bytes(raw))
        size += len(chunk[-1])
        if size >= CHUNK_BYTES or end == len(raws):
            yield b"\n".join(chunk)
            chunk, size = [], 0


# --- saying what is wrong -------------------------------------------------------------------


def _split_array(body: bytes, cause: Exception) -> list[bytes]:
    """The items of a refused body, or InvalidJson where it is not JSON at all."""
    try:
        if body.lstrip()[:1] == b"[":
            return [bytes(raw) for raw in _decode_raws.decode(body)]
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        bad = _non_finite(body)
        if bad:
            raise refused(bad) from cause
        if "out of range" not in str(cause):
            raise InvalidJson(_json_trouble(body, cause)) from cause
    return [body]


def _json_trouble(body: bytes, cause: Exception) -> str:
    if isinstance(cause, RecursionError):
        return "the body is nested too deeply"
    try:
        body.decode()
    except UnicodeDecodeError as exc:
        return f"the body is not valid UTF-8: byte {exc.start} is 0x{body[exc.start]:02x}"
    return f"the body is not valid JSON: {cause}"


def _diagnose(pieces: Sequence[bytes], types: Types) -> InvalidItem:
    errors: list[FieldError] = []
    for index, piece in enumerate(pieces):
        error = _explain(piece, types, index)
        if error:
            errors.append(error)
            if len(errors) == MAX_ERRORS:
                break
    return refused(errors or [{"index": 0, "field": "", "message": "cannot be read as an item"}])


def _explain(piece: bytes, types: Types, index: int) -> FieldError | None:
    try:
        item = _decode_item.decode(piece)
    except RecursionError:
        return {"index": index, "field": "data", "message": "is nested too deeply"}
    except UnicodeDecodeError:
        return {"index": index, "field": "", "message": "is not valid UTF-8"}
    except msgspec.ValidationError as exc:
        text = str(exc)
        path, named = _PATH.search(text), _NAMED.search(text)
        field = ".".join(part for part in (path and path[1], named and named[1]) if part)
        return {"index": index, "field": field, "message": _PATH.sub("", text)}
    except msgspec.DecodeError as exc:
        bad = _non_finite(piece)
        if bad:
            return {"index": index, "field": bad[0]["field"], "message": bad[0]["message"]}
        return {"index": index, "field": "", "message": f"is not valid JSON: {exc}"}
    problem = types.check(item.type, item.data) or _timestamp(item.timestamp or 0)
    return problem and {"index": index, "field": problem[0], "message": problem[1]}


def _non_finite(body: bytes) -> list[FieldError]:
    """Where NaN or Infinity stands, for bodies that are JSON but for these words."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return []
    items = value if isinstance(value, list) else [value]
    errors: list[FieldError] = []
    for i, item in enumerate(items):
        field = _find_non_finite(item)
        if field is not None:
            errors.append({"index": i, "field": field, "message": "must be a finite JSON number"})
    return errors[:MAX_ERRORS]


def _find_non_finite(value: Any, path: str = "") -> str | None:
    if isinstance(value, float) and not isfinite(value):
        return path
    pairs: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        found = _find_non_finite(inner, f"{path}.{key}" if path else str(key))
        if found is not None:
            return found
    return None


def make_item(
    type_: str, data: dict[str, Any], *, source: str, timestamp: float | None = None
) -> Item:
    """An item that the node itself produces."""
    return Item(type=type_, source=source, timestamp=timestamp, data=data, metadata=UNSET)
