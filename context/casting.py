"""The version bridge: items between the schemas of neighbouring versions of this program.

The schema of an item's `data` may change with the protocol. Whoever changes the schema of a type
registers how data of the version before becomes data of the next one (`up`), and back (`down`).
Only the newer of two neighbours knows how: it translates both ways, and while an older
node is alive a leader writes what that one can read.

A cast may rename, split or add fields; what it does not know it keeps. For what both
versions know `down(up(x)) == x`. A line whose cast fails stays as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

Data = dict[str, Any]
Cast = Callable[[Data], Data]  # changes what it is given, or makes anew
Step = tuple[Cast, Cast]  # up, down
FIRST = 1  # schema of what says nothing of it


class _Line(msgspec.Struct):
    """A line whose other members stay byte for byte."""

    type: str
    source: msgspec.Raw
    timestamp: msgspec.Raw
    data: Data
    metadata: msgspec.Raw | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Line).decode
_read = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_FAULTS = (LookupError, TypeError, ValueError, AttributeError)  # of casts, and of odd items


class Casting:
    """Casts by type and the version that they start from."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, int], Step] = {}

    def register(self, type_: str, version: int, up: Cast, down: Cast) -> None:
        """How data of a type gets from `version` to the next one, and back."""
        self._steps[type_, version] = (up, down)

    def casts(self, have: int, want: int) -> Mapping[str, list[Cast]]:
        """What to do to data of each type, in order; a type without a cast is the same in both."""
        found: dict[str, list[Cast]] = {}
        way = range(have, want) if want > have else range(have - 1, want - 1, -1)
        for version in way:
            for (type_, start), step in self._steps.items():
                if start == version:
                    found.setdefault(type_, []).append(step[0 if want > have else 1])
        return found

    def data(self, type_: str, data: Data, have: int, want: int) -> Data:
        """Data of one item in another version; raises what a cast raises."""
        for cast in self.casts(have, want).get(type_, ()):
            data = cast(dict(data))
        return data

    def lines(self, text: bytes, have: int, want: int) -> bytes:
        """Lines as in `Batch.text`, as many and in the same order; `text` itself without casts."""
        casts = self.casts(have, want)
        heads = tuple(b'{"type":"%b",' % type_.encode() for type_ in casts)
        if not any(head in text for head in heads):
            return text
        lines = text.split(b"\n")
        for n, line in enumerate(lines):
            if line.startswith(heads):
                lines[n] = _cast(line, casts)
        return b"\n".join(lines)

    def body(self, plain: bytes, have: int, want: int, *, ndjson: bool) -> bytes:
        """The body of an ingest: an item, an array of them, or one a line.

        Comes back as it is where it is none: whoever stores it says what is wrong.
        """
        casts = self.casts(have, want)
        if not any(type_.encode() in plain for type_ in casts):
            return plain
        try:
            if ndjson:
                lines = [line for line in plain.split(b"\n") if line.strip()]
                cast = [_encode(_cast_item(_read(line), casts)) for line in lines]
                return b"\n".join(cast) + b"\n"
            found = _read(plain)
            items = found if isinstance(found, list) else [found]
            cast_items = [_cast_item(item, casts) for item in items]
            return _encode(cast_items if isinstance(found, list) else cast_items[0])
        except (msgspec.MsgspecError, RecursionError, *_FAULTS):
            return plain


CASTING = Casting()  # of this program: one line for each change of a schema


def _cast(line: bytes, casts: Mapping[str, list[Cast]]) -> bytes:
    try:
        read = _decode(line)
        for cast in casts[read.type]:
            read.data = cast(read.data)
        return _encode(read)
    except (msgspec.MsgspecError, *_FAULTS):
        return line


def _cast_item(item: Any, casts: Mapping[str, list[Cast]]) -> Any:
    for cast in casts.get(item["type"], ()):
        item["data"] = cast(item["data"])
    return item
