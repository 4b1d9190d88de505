"""Server-Sent Events as a reader sees them: bytes in, events out (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream.

    `kind` "context": `data` is an item and `cursor` its id.
    `kind` "gap": items from `data["missed_from"]` to `data["missed_to"]` are gone.
    """

    kind: Literal["context", "gap"]
    cursor: str | None
    data: dict[str, Any]


class EventDecoder:
    """Events from bytes, in whatever pieces they arrive; lines end in LF or CR LF."""

    def __init__(self) -> None:
        self._tail = b""
        self._fields: dict[str, str] = {}

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that `chunk` completes; comments and unknown kinds are passed over."""
        *lines, self._tail = (self._tail + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line:
                self._field(line.decode())
                continue
            fields, self._fields = self._fields, {}
            match fields:
                case {"event": "context" | "gap" as kind, "data": data}:
                    yield Event(kind, fields.get("id"), json.loads(data))

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and name in self._fields:
            value = f"{self._fields[name]}\n{value}"
        self._fields[name] = value


def is_after(cursor: str, last: str) -> bool:
    """Whether a cursor lies after the last one seen; one of another epoch always does."""
    epoch, _, offset = cursor.rpartition(":")
    last_epoch, _, last_offset = last.rpartition(":")
    return epoch != last_epoch or int(offset) > int(last_offset)
