"""Items as they usually come, in one compiled pass: their lines, checked, and their columns."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from context import walk
from context.column import Column
from context.heads import Heads
from context.types import TYPES, Types

LATEST = walk.LATEST

_UNKNOWN = b',"source":"unknown"'

_encode = msgspec.json.Encoder().encode


class _Names:
    """Room for the names that one walk meets, which the next one uses again."""

    def __init__(self) -> None:
        self.slots = np.zeros((3, walk.SLOTS), dtype=np.int32)
        self.spans = np.zeros((3, walk.MAX_NAMES + 1, 3), dtype=np.int64)
        self.kinds = np.empty(walk.MAX_NAMES, dtype=np.int32)


_unused: list[_Names] = []  # any thread takes one that nobody uses, and gives it back


def read(sent: bytes, types: Types, *, now: float) -> tuple[bytes, Heads, NDArray[np.int32]] | None:
    """Lines of NDJSON, their columns and where each ends; None unless all are usual and good.

    Raises UnicodeDecodeError where the text is not UTF-8.
    """
    if not sent.isascii():
        sent.decode()
    try:
        names = _unused.pop()
    except IndexError:
        names = _Names()
    try:
        return _read(sent, types, now, names)
    finally:
        _unused.append(names)


def _read(
    sent: bytes, types: Types, now: float, names: _Names
) -> tuple[bytes, Heads, NDArray[np.int32]] | None:
    end = b"" if sent.endswith(b"\n") else b"\n"
    stamp = b',"timestamp":' + _encode(now)
    data = b"".join((sent, end, _UNKNOWN, stamp))
    size, most = len(sent) + len(end), sent.count(b"\n") + len(end)
    unknown = size + len(_UNKNOWN)
    text, tails = np.frombuffer(data, dtype=np.uint8), np.array((size, unknown, len(data)))
    room = np.empty(size + (len(data) - size) * most, dtype=np.uint8)
    times, stamps = np.empty(most), np.empty((most, 2), dtype=np.int64)
    ends = np.empty(most, dtype=np.int32)
    codes = np.empty((3, most), dtype=np.int32)
    found = (names.slots, names.spans, names.kinds)
    items, size, doubtful = walk.walk(text, size, tails, room, times, stamps, ends, codes, *found)
    if items <= 0:
        return None
    if doubtful:
        for i in np.flatnonzero(np.isnan(times)).tolist():
            times[i] = float(data[stamps[i, 0] : stamps[i, 1]])
        if not -LATEST <= times.min() <= times.max() <= LATEST:
            return None
    columns = [Column(_values(data, names.spans[row]), codes[row]) for row in range(3)]
    if not all(name in TYPES or types.unruled(name) for name in columns[walk.TYPE].values):
        return None
    return room[:size].tobytes(), Heads(times, *columns), ends


def _values(data: bytes, names: NDArray[np.int64]) -> dict[str, int]:
    spans = names[: names[walk.MAX_NAMES, 0]].tolist()
    return {data[begin:end].decode(): code for code, (begin, end, _) in enumerate(spans)}
