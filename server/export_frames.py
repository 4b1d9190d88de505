"""What agent and web process tell each other about an export."""

from __future__ import annotations

import msgspec


class ExportStart(msgspec.Struct, array_like=True):
    """Offsets `after` < exported items <= `until`, and what frames the pieces."""

    epoch: str
    after: int
    until: int
    media: str
    suffix: str
    head: bytes
    tail: bytes
    damaged: list[tuple[int, int]]  # first and last offset of what is known to be lost


class ExportPiece(msgspec.Struct, array_like=True):
    """Encoded items up to the offset `reached`, which the next piece begins after."""

    epoch: str
    oldest: int  # offset of the oldest item that is still here
    reached: int
    body: bytes
    lost: tuple[int, int] | None = None  # instead of items: a damaged block lay there
