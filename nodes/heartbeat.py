"""What a node tells the others of itself, several times a second.

On the wire: JSON of `Heartbeat`. Unknown names are ignored and missing ones have defaults, so that
neighbouring versions understand each other; `protocol` says which version speaks.
"""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.errors import BadHeartbeat
from nodes.protocol import PROTOCOL, near


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One sign of life."""

    id: str
    url: str  # of its web interface
    protocol: int = PROTOCOL
    life: str = ""  # differs between two runs of a node
    number: int = 0  # grows within a life
    term: int = 0  # newest known
    leading: bool = False
    holding: int = 0  # revision of the claim it holds the lease by; 0 for none
    observer: bool = False  # never leads
    apart: bool = False  # two versions away from most of the nodes it hears
    replaces: str = ""  # id of the node whose place it took
    full: bool = False  # its disk takes nothing in: any other leads rather
    stopping: bool = False  # about to go; not to be chosen
    score: float = 0.0
    score_parts: dict[str, float] = {}
    capabilities: dict[str, Any] = {}
    applied_offset: int = -1
    feeds: list[dict[str, Any]] = []

    @property
    def eligible(self) -> bool:
        """Whether this node may be chosen to lead."""
        if self.observer or self.stopping or self.apart:
            return False
        return near(self.protocol, PROTOCOL)


_decoder = msgspec.json.Decoder(Heartbeat)
encode = msgspec.json.Encoder().encode


def decode(data: bytes) -> Heartbeat:
    """Read a heartbeat; raises BadHeartbeat, whatever the bytes."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        raise BadHeartbeat(f"not a heartbeat: {exc}") from exc
