"""Reads what web processes ask over their connections to the agent."""

from __future__ import annotations

import asyncio

import msgspec

from server import ipc
from server.ipc import Request

_decode = msgspec.msgpack.Decoder(Request).decode


async def read_request(reader: asyncio.StreamReader) -> Request:
    """The next request.

    Raises asyncio.IncompleteReadError where the connection ends, FrameTooLarge, DecodeError.
    """
    size = ipc.length(await reader.readexactly(ipc.HEADER_BYTES))
    return _decode(await reader.readexactly(size))
