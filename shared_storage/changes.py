"""Changes of state as payloads of the replicated stream: MessagePack arrays.

    ["put", kind, key, version, value, updated_at]
    ["delete", kind, key]
    ["prune", kind, keep_newest]

The leader decides (which version follows, whether a condition holds) before it writes, so that
applying a change never fails and needs nothing but the state that all nodes have at that place.
"""

from __future__ import annotations

import msgspec

from shared_storage.errors import BadMessage


class Put(msgspec.Struct, array_like=True, tag="put", frozen=True):
    """A value was stored."""

    kind: str
    key: str
    version: int
    value: bytes
    updated_at: float


class Delete(msgspec.Struct, array_like=True, tag="delete", frozen=True):
    """A value was removed."""

    kind: str
    key: str


class Prune(msgspec.Struct, array_like=True, tag="prune", frozen=True):
    """All but the last written values of a kind were removed."""

    kind: str
    keep_newest: int


Change = Put | Delete | Prune
_decoder = msgspec.msgpack.Decoder(Change)
encode_change = msgspec.msgpack.Encoder().encode


def decode_change(payload: bytes) -> Change:
    """The change; raises BadMessage, whatever the bytes."""
    try:
        change: Change = _decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise BadMessage(f"not a change of state: {exc}") from exc
    return change
