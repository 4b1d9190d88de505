"""Items as they usually come, in one compiled pass: their lines, checked, and their columns."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from context import walk
from context.column import Column
from context.heads import Heads
from context.types import TYPES, Types

LATEST = 1e11  # unix seconds: the year 5138. Milliseconds of today are larger

_NEWLINE = ord("\n")
_UNKNOWN = b',"source":"unknown"'

_encode = msgspec.json.Encoder().encode


def read(sent: bytes, types: Types, *, now: float) -> tuple[bytes, Heads, NDArray[np.int32]] | None:
    """Lines of NDJSON, their columns and where each ends; None unless all are usual and good.

    Raises UnicodeDecodeError where the text is not UTF-8.
    """
    if not sent.isascii():
        sent.decode()
    end = b"" if sent.endswith(b"\n") else b"\n"
    stamp = b',"timestamp":' + _encode(now)
    data = b"".join((sent, end, _UNKNOWN, stamp))
    size = len(sent) + len(end)
    text = np.frombuffer(data, dtype=np.uint8)
    most = int(np.count_nonzero(text == _NEWLINE))
    tails = np.cumsum((size, len(_UNKNOWN), len(stamp)))
    room = np.empty(size + (len(data) - size) * most, dtype=np.uint8)
    times, stamps = np.empty(most), np.empty((most, 2), dtype=np.int64)
    ends = np.empty(most, dtype=np.int32)
    codes = np.empty((3, most), dtype=np.int32)
    slots = np.zeros((3, walk.SLOTS), dtype=np.int32)
    names = np.zeros((3, walk.MAX_NAMES + 1, 2), dtype=np.int64)
    kinds = np.empty(walk.MAX_NAMES, dtype=np.int32)
    items, size = walk.walk(
        text, size, tails, room, times, stamps, ends, codes, slots, names, kinds
    )
    if items <= 0:
        return None
    times = times[:items]
    for i in np.flatnonzero(np.isnan(times)).tolist():
        times[i] = float(data[stamps[i, 0] : stamps[i, 1]])
    if not -LATEST <= times.min() <= times.max() <= LATEST:
        return None
    columns = [Column(_values(data, names[row]), codes[row]) for row in range(3)]
    if not all(name in TYPES or types.unruled(name) for name in columns[walk.TYPE].values):
        return None
    return room[:size].tobytes(), Heads(times, *columns), ends[:items]


def _values(data: bytes, names: NDArray[np.int64]) -> dict[str, int]:
    spans = names[: names[walk.MAX_NAMES, 0]].tolist()
    return {data[begin:end].decode(): code for code, (begin, end) in enumerate(spans)}
