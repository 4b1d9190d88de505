"""From a request body to validated lines: all items or none, and an error that names the item.

The fast path decodes, checks and encodes whole chunks in C. Only when something is wrong are the
items looked at one by one to say what and where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import Any

import msgspec
from msgspec import UNSET

from context.errors import FieldError, InvalidItem, InvalidJson
from context.items import MAX_ITEM_BYTES, Item
from context.types import Types

MAX_ERRORS = 20
LATEST = 1e11  # unix seconds: the year 5138. Milliseconds of today are larger
CHUNK_BYTES = 256 * 1024  # one C call holds the interpreter; this bounds it to about 2 ms

MAX_RAW_BYTES = 8 * MAX_ITEM_BYTES  # of one item as sent, with its escapes and white space

_decode_item = msgspec.json.Decoder(Item)
_decode_items = msgspec.json.Decoder(list[Item])
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_NAMED = re.compile(r"(?:missing required|contains unknown) field `([^`]*)`")


def parse_json(body: bytes, types: Types, *, now: float) -> tuple[int, bytes]:
    """Count and lines of a body holding one item or an array of items.

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
            return 1, _lines([_decode_item.decode(body)], types, now=now, first=0)
        if start != b"[":
            raise InvalidJson("the body must be one item (a JSON object) or an array of items")
        if len(body) <= CHUNK_BYTES:
            items = _decode_items.decode(body)
            return len(items), _lines(items, types, now=now, first=0)
        return _join(_array_chunks(_decode_raws.decode(body)), types, now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _diagnose(_split_array(body, exc), types) from exc


def parse_ndjson(body: bytes, types: Types, *, now: float) -> tuple[int, bytes]:
    """Count and lines of a body with one item a line; blank lines are skipped.

    Raises InvalidItem as `parse_json`; a line that is not JSON is an invalid item.
    """
    try:
        return _join(_ndjson_chunks(body), types, now)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        pieces = [line for line in body.split(b"\n") if line.strip()]
        raise _diagnose(pieces, types) from exc


def encode_checked(items: Sequence[Item], types: Types, *, now: float) -> tuple[int, bytes]:
    """Count and lines of items made inside the node; the same rules hold."""
    return len(items), _lines(items, types, now=now, first=0)


def _lines(items: Sequence[Item], types: Types, *, now: float, first: int) -> bytes:
    """Check items, fill in the time, and encode one line each. `first` is the index of items[0]."""
    if not items and not first:
        raise InvalidItem("the batch is empty: send at least one item")
    errors: list[FieldError] = []
    check = types.check
    for i, item in enumerate(items):
        if item.timestamp is None:
            item.timestamp = now
        problem = check(item.type, item.data) or _timestamp(item.timestamp)
        if problem:
            errors.append({"index": first + i, "field": problem[0], "message": problem[1]})
            if len(errors) == MAX_ERRORS:
                break
    text = _encoder.encode_lines(items)
    if len(text) > MAX_ITEM_BYTES:
        errors += _oversized(text, first)
    if errors:
        raise refused(errors)
    return text


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


def _join(chunks: Iterable[Sequence[Item]], types: Types, now: float) -> tuple[int, bytes]:
    count, parts = 0, []
    for items in chunks:
        parts.append(_lines(items, types, now=now, first=count))
        count += len(items)
    if not count:
        raise InvalidItem("the batch is empty: send at least one item")
    return count, b"".join(parts)


def _ndjson_chunks(body: bytes) -> Iterator[list[Item]]:
    start = 0
    while start < len(body):
        end = body.find(b"\n", min(start + CHUNK_BYTES, len(body) - 1)) + 1 or len(body)
        if end - start > MAX_RAW_BYTES:  # one line fills it; decoding it would stop everything
            raise refused([_too_long(body.count(b"\n", 0, start + CHUNK_BYTES))])
        items = _decode_item.decode_lines(body[start:end])
        if items:
            yield items
        start = end


def _array_chunks(raws: Sequence[msgspec.Raw]) -> Iterator[list[Item]]:
    start, size = 0, 0
    for end, raw in enumerate(raws, 1):
        size += len(bytes(raw))
        if size >= CHUNK_BYTES or end == len(raws):
            yield [_decode_item.decode(raw) for raw in raws[start:end]]
            start, size = end, 0


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
