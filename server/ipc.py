"""Framed msgpack between the processes of one node, over a Unix socket.

A frame is a 4-byte big-endian length and a msgpack array. The web process asks
`[method, params, body]`; the agent answers `[status, headers, body]`. One connection carries one
exchange at a time; `feed` and `leadership` turn a connection into a stream of the agent's frames.
On a feed's, the web process may say again at any time whether it wants `whole` batches. After the
answer to `intake` a connection carries numbered bodies to ingest, and answers, as they come.
"""

from __future__ import annotations

import socket
from typing import Any

import msgspec

MAX_FRAME_BYTES = 80 * 1024 * 1024  # above the largest answer: 10,000 items, or a 16 MiB body
HEADER_BYTES = 4
PIECE_BYTES = 16 * 1024  # usual answers come in one piece
SMALL_BYTES = 256 * 1024  # of items, checked in about a millisecond: a thread would cost more

_encode_into = msgspec.msgpack.Encoder().encode_into


class Request(msgspec.Struct, array_like=True):
    """What the web process asks the agent."""

    method: str
    params: dict[str, Any]
    body: bytes = b""


class Answer(msgspec.Struct, array_like=True):
    """The agent's answer: an HTTP status, headers, and a body that is passed on as it is."""

    status: int
    headers: dict[str, str]
    body: bytes


class Posted(msgspec.Struct, array_like=True):
    """A small body to ingest, one of many on their way."""

    number: int
    params: dict[str, Any]
    body: bytes


class Told(msgspec.Struct, array_like=True):
    """The answer to the body of this number."""

    number: int
    status: int
    headers: dict[str, str]
    body: bytes


class FeedBatch(msgspec.Struct, array_like=True):
    """One durable batch on its way to subscribers.

    Where the web process does not want `whole` ones, `text` is empty and the frame stands for all
    batches of these offsets: they are there, and the log gives them.
    """

    first_offset: int
    count: int
    ingested_at: float = 0.0
    term: int = 0
    text: bytes = b""
    for_all: bool = True  # may hold what every client is told of, unasked


class Led(msgspec.Struct, array_like=True, frozen=True):
    """Who leads, as the agent sees it; `id` and `url` are empty where nobody does."""

    id: str = ""
    url: str = ""
    term: int = 0
    here: bool = False  # this node leads, and has applied all that earlier leaders wrote
    protocol: int = 1  # the version that the leader understands


class FrameTooLarge(Exception):
    """The peer announced a frame beyond the limit."""


def pack(message: msgspec.Struct) -> bytearray:
    """One frame, length first."""
    frame = bytearray(HEADER_BYTES)
    _encode_into(message, frame, HEADER_BYTES)
    frame[:HEADER_BYTES] = (len(frame) - HEADER_BYTES).to_bytes(HEADER_BYTES, "big")
    return frame


def length(header: bytes | memoryview) -> int:
    """Length of the payload that follows the header."""
    size = int.from_bytes(header, "big")
    if size > MAX_FRAME_BYTES:
        raise FrameTooLarge(f"frame of {size} bytes; at most {MAX_FRAME_BYTES} are allowed")
    return size


def receive(sock: socket.socket, begun: bytes = b"") -> tuple[bytes | bytearray, bytes]:
    """One frame, and what came after it already."""
    while len(begun) < HEADER_BYTES:
        more = sock.recv(PIECE_BYTES)
        if not more:
            raise ConnectionResetError("connection closed")
        begun += more
    end = HEADER_BYTES + length(begun[:HEADER_BYTES])
    if len(begun) >= end:
        return begun[HEADER_BYTES:end], begun[end:]
    return _exactly(sock, end - HEADER_BYTES, begun[HEADER_BYTES:]), b""


def _exactly(sock: socket.socket, size: int, begun: bytes) -> bytearray:
    buffer = bytearray(size)
    buffer[: len(begun)] = begun
    view, got = memoryview(buffer), len(begun)
    while got < size:
        count = sock.recv_into(view[got:])
        if not count:
            raise ConnectionResetError("connection closed")
        got += count
    return buffer
