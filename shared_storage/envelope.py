"""One message of the replicated stream, byte for byte. Version 1:

    offset  bytes  what
    0       3      "CXR"
    3       1      version, 1
    4       1      kind: 1 items, 2 change of state, 3 fence
    5       8      term of the leader that wrote it, unsigned, little endian
    13      8      sequence of the message before it in the stream, 0 for the first
    21      1      length of the epoch, 1 to 32
    22      n      epoch, ASCII
    22+n           payload, its layout given by the kind

The sequence before makes every message unique to its place: a writer that does not know whether
its message was stored finds it there byte for byte, or another in its place.

Bytes that are no such message are BadMessage: every node leaves them out, at the same place. A
message of a later version is NewerMessage: leaving that out would lose what newer nodes keep.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from shared_storage.errors import BadMessage, NewerMessage

VERSION = 1
_MAGIC = b"CXR"
_HEAD = struct.Struct("<3sBBQQB")
_LONGEST_EPOCH = 32


class Kind(IntEnum):
    """What a message carries."""

    ITEMS = 1
    STATE = 2
    FENCE = 3


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message of the stream, opened."""

    kind: Kind
    term: int
    previous: int  # sequence of the message before
    epoch: str
    payload: bytes = b""


def encode(message: Envelope) -> bytes:
    """The message as bytes."""
    epoch = message.epoch.encode("ascii")
    head = (_MAGIC, VERSION, message.kind, message.term, message.previous, len(epoch))
    return _HEAD.pack(*head) + epoch + message.payload


def decode(data: bytes) -> Envelope:
    """Open a message; raises BadMessage or NewerMessage, whatever the bytes."""
    if len(data) < _HEAD.size or data[:3] != _MAGIC:
        raise BadMessage("not a message of this program")
    _, version, kind, term, previous, length = _HEAD.unpack_from(data)
    if version > VERSION:
        raise NewerMessage(f"a message has version {version}; this program knows {VERSION}")
    epoch = data[_HEAD.size : _HEAD.size + length]
    if version == 0 or not 1 <= length <= _LONGEST_EPOCH or len(epoch) < length:
        raise BadMessage("a message's head is damaged")
    if not epoch.isalnum() or not epoch.isascii():
        raise BadMessage("a message's epoch is damaged")
    try:
        known = Kind(kind)
    except ValueError:
        raise BadMessage(f"a message is of the unknown kind {kind}") from None
    payload = bytes(data[_HEAD.size + length :])
    return Envelope(known, term, previous, epoch.decode("ascii"), payload)
