"""Answers of searches by meaning: offsets with scores become items, alone or fused with grep."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from context.items import encode_item
from context.ranking import fuse
from context.snapshot import Snapshot

Found = Sequence[tuple[int, float]]  # offset and score, best first
_encode = msgspec.json.encode


class _Offset(msgspec.Struct):
    offset: int


def ranked(
    snapshot: Snapshot, found: Found, *, epoch: str, seen: dict[int, bytes] | None = None
) -> list[msgspec.Raw]:
    """The items in the order found, each with `line`, `matches` and `score`.

    `seen` are hits written already, by offset. Items that retention took are left out.
    """
    items = []
    for offset, score in found:
        hit = (seen or {}).get(offset) or _hit(snapshot, epoch, offset)
        if hit is not None:
            items.append(msgspec.Raw(hit[:-1] + b',"score":%b}' % _encode(round(score, 6))))
    return items


def fused(
    snapshot: Snapshot, grep: Sequence[msgspec.Raw], found: Found, *, epoch: str, limit: int
) -> list[msgspec.Raw]:
    """Hits of a grep, newest first, and of a search by meaning as one ranking."""
    seen = {msgspec.json.decode(hit, type=_Offset).offset: bytes(hit) for hit in grep}
    both = fuse([list(seen), [offset for offset, _ in found]])
    return ranked(snapshot, both[:limit], epoch=epoch, seen=seen)


def _hit(snapshot: Snapshot, epoch: str, offset: int) -> bytes | None:
    stored = snapshot.kept(offset)
    if stored is None:
        return None
    item = encode_item(epoch, offset, *stored)
    return item[:-1] + b',"line":%b,"matches":[]}' % _encode(stored[1].decode())
