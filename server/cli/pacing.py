"""When recorded items are due, and which go into one request. Pure: lines in, batches out.

An item is due `(newest timestamp so far - first timestamp) / speed` seconds after the start, so
a whole recording takes its own span divided by `speed`, and items whose timestamp steps back are
due at once. Speed 0 means that everything is due at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from context.items import MAX_ITEM_BYTES, Item

MAX_ITEMS = 1000
MAX_BYTES = 4 << 20  # well below the body a node accepts (16 MiB)
MAX_PACE_S = 0.05
MAX_LINE_BYTES = 4 * MAX_ITEM_BYTES  # an item in generous spelling


class BadLine(Exception):
    """A line that is not an item; everything before it has been yielded."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number} is not an item: {reason}")
        self.number = number


@dataclass(frozen=True, slots=True)
class Batch:
    """Items for one request: NDJSON, the line number of each, and when the last one is due."""

    body: bytes
    numbers: list[int]  # from 1, as editors count; blank lines are counted and left out
    due_s: float


class _Clock:
    """Due times of one recording."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._first: float | None = None
        self._newest = 0.0

    def due_s(self, timestamp: float | None) -> float:
        """Seconds after the start; an item without a time is due with the one before it."""
        if timestamp is not None:
            if self._first is None:
                self._first = self._newest = timestamp
            self._newest = max(self._newest, timestamp)
        if self._first is None or self._speed == 0:
            return 0.0
        return (self._newest - self._first) / self._speed


class _Open:
    """The batch that is being filled."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._numbers: list[int] = []
        self._size, self._start_s, self._due_s = 0, 0.0, 0.0

    def __bool__(self) -> bool:
        return bool(self._lines)

    def has_room(self, line: bytes, due_s: float) -> bool:
        """Whether a line may still join."""
        return not self._lines or (
            len(self._lines) < MAX_ITEMS
            and self._size + len(line) <= MAX_BYTES
            and due_s - self._start_s <= MAX_PACE_S
        )

    def add(self, number: int, line: bytes, due_s: float) -> None:
        """Take one more line."""
        if not self._lines:
            self._start_s = due_s
        self._lines.append(line + b"\n")
        self._numbers.append(number)
        self._size += len(line) + 1
        self._due_s = due_s

    def close(self) -> Batch:
        """What was collected."""
        return Batch(b"".join(self._lines), self._numbers, self._due_s)


def plan(lines: Iterable[bytes], speed: float) -> Iterator[Batch]:
    """Batches of up to 1000 items, 4 MiB or 50 ms of pace, reading one line ahead.

    Raises BadLine at the first line that is no item, or what reading raises, after the lines
    before it.
    """
    batch = _Open()
    try:
        for number, line, due_s in _timed(lines, _Clock(speed)):
            if not batch.has_room(line, due_s):
                yield batch.close()
                batch = _Open()
            batch.add(number, line, due_s)
    except Exception:
        if batch:
            yield batch.close()
        raise
    if batch:
        yield batch.close()


def _timed(lines: Iterable[bytes], clock: _Clock) -> Iterator[tuple[int, bytes, float]]:
    decoder = msgspec.json.Decoder(Item)
    for number, raw in enumerate(lines, 1):
        if len(raw) >= MAX_LINE_BYTES:
            raise BadLine(number, f"longer than {MAX_LINE_BYTES} bytes")
        if line := raw.strip():
            try:
                yield number, line, clock.due_s(decoder.decode(line).timestamp)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise BadLine(number, str(error)) from error
