"""Messages to and from the worker: 4 bytes big-endian length, then msgpack.

A request is `{"id", "op", ...}`; its answer `{"id", "ok": true, ...}` or
`{"id", "ok": false, "error"}`.
A series travels as its two names and four little-endian float64 arrays.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec
import numpy as np

from ai_bridge.series import Floats, Series

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_ARRAYS = ("timestamps", "prices", "volumes", "sides")


class BadFrame(Exception):
    """The peer sent something that is not a message."""


def frame(message: dict[str, Any]) -> bytes:
    """Encode one message."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Read one message; raises EOFError at the end of the stream, BadFrame on garbage."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise BadFrame(f"frame of {length} bytes, at most {MAX_FRAME_BYTES} are read")
    body = await reader.readexactly(length)
    try:
        return msgspec.msgpack.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError as wrong:
        raise BadFrame(str(wrong)) from wrong


def pack_series(series: Series, start: int = 0, stop: int | None = None) -> dict[str, Any]:
    """Return a series (or a slice of its points) as a part of a message."""
    arrays = {name: getattr(series, name)[start:stop].astype("<f8").tobytes() for name in _ARRAYS}
    return {"symbol": series.symbol, "source": series.source, **arrays}


def unpack_series(part: dict[str, Any]) -> Series:
    """Read a series back; raises BadFrame where arrays are missing or differ in length."""
    try:
        arrays: dict[str, Floats] = {name: np.frombuffer(part[name], "<f8") for name in _ARRAYS}
        series = Series(symbol=str(part["symbol"]), source=str(part["source"]), **arrays)
    except (KeyError, TypeError, ValueError) as wrong:
        raise BadFrame(f"not a series: {wrong!r}") from wrong
    if len({len(array) for array in arrays.values()}) != 1:
        raise BadFrame(f"arrays of {series.key} differ in length")
    return series
