"""Items as they usually come, in one compiled pass: their lines, checked, and their columns."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from context import walk
from context.column import Column
from context.heads import Heads
from context.types import TYPES, Types

LATEST = walk.LATEST

_UNKNOWN, _STAMP = b',"source":"unknown"', b',"timestamp":'
_MOST_MORE = len(_UNKNOWN) + len(_STAMP) + 32  # bytes that a line may get

_LEAST_LINE = len(b'{"type":"","data":{}}\n')
_USUAL_BYTES = 256 * 1024  # of what is read at once

_encode = msgspec.json.Encoder().encode


class _Room:
    """Room for what one walk finds, which the next one uses again: fresh pages cost more."""

    def __init__(self, size: int) -> None:
        """For so many bytes of lines, one more only begun: the walk checks no bounds."""
        most = size // _LEAST_LINE + 1
        self.lines = np.empty(size + most * _MOST_MORE, dtype=np.uint8)
        self.times, self.stamps = np.empty(most), np.empty((most, 2), dtype=np.int64)
        self.ends = np.empty(most, dtype=np.int32)
        self.codes = np.empty((3, most), dtype=np.int32)
        self.slots = np.zeros((3, walk.SLOTS), dtype=np.int32)
        self.names = np.zeros((3, walk.MAX_NAMES + 1, 3), dtype=np.int64)
        self.kinds = np.empty(walk.MAX_NAMES, dtype=np.int32)


_unused: list[_Room] = []  # any thread takes one that nobody uses, and gives it back


class Plain(NamedTuple):
    """Items as they usually come."""

    text: bytes  # their lines
    heads: Heads
    ends: NDArray[np.int32]  # of each line, before its newline
    chains: bool  # whether an object in there has a key `chain`


def read(sent: bytes, types: Types, *, now: float) -> Plain | None:
    """The items of NDJSON; None unless all are usual and good.

    Raises UnicodeDecodeError where the text is not UTF-8.
    """
    if not sent.isascii():
        sent.decode()
    if len(sent) > _USUAL_BYTES:
        return _read(sent, types, now, _Room(len(sent) + 1))
    try:
        room = _unused.pop()
    except IndexError:
        room = _Room(_USUAL_BYTES + 1)
    try:
        return _read(sent, types, now, room)
    finally:
        _unused.append(room)


def _read(sent: bytes, types: Types, now: float, room: _Room) -> Plain | None:
    end = b"" if sent.endswith(b"\n") else b"\n"
    stamp = _STAMP + _encode(now)
    data = b"".join((sent, end, _UNKNOWN, stamp))
    size = len(sent) + len(end)
    tails = np.array((size, size + len(_UNKNOWN), len(data)))
    items, length, doubtful, chains = walk.walk(
        np.frombuffer(data, dtype=np.uint8),
        size,
        tails,
        room.lines,
        room.times,
        room.stamps,
        room.ends,
        room.codes,
        room.slots,
        room.names,
        room.kinds,
    )
    if items <= 0:
        return None
    times = room.times[:items].copy()
    if doubtful:
        for i in np.flatnonzero(np.isnan(times)).tolist():
            times[i] = float(data[room.stamps[i, 0] : room.stamps[i, 1]])
        if not -LATEST <= times.min() <= times.max() <= LATEST:
            return None
    codes = room.codes[:, :items].copy()
    columns = [Column(_values(data, room.names[row]), codes[row]) for row in range(3)]
    if not all(name in TYPES or types.unruled(name) for name in columns[walk.TYPE].values):
        return None
    lines = data[:size] if length == size else room.lines[:length].tobytes()
    return Plain(lines, Heads(times, *columns), room.ends[:items].copy(), chains)


def _values(data: bytes, names: NDArray[np.int64]) -> dict[str, int]:
    spans = names[: names[walk.MAX_NAMES, 0]].tolist()
    return {data[begin:end].decode(): code for code, (begin, end, _) in enumerate(spans)}
