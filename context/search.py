"""Answers of a search: newest first, page by page, within a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from context.ahead import Submit
from context.block import Block
from context.damage import UnavailableBlock
from context.errors import BadCursor
from context.filter import Filter
from context.items import Cursor, encode_item
from context.query import Selection
from context.request import LatestRequest, SearchRequest, parse_latest, parse_search
from context.scan import Clock, Scanned, Step, descend, read_forward, read_on
from context.snapshot import Snapshot

__all__ = [
    "LatestRequest",
    "SearchRequest",
    "latest",
    "parse_latest",
    "parse_search",
    "read_forward",
    "read_on",
    "search",
]

MAX_ANSWER_BYTES = 16 << 20  # a page ends early here; `next` continues it
_LATEST_DEADLINE_S = 1.0

Answer = dict[str, Any]
Render = Callable[[Block, int], bytes]
_encode = msgspec.json.encode


def search(
    snapshot: Snapshot,
    request: SearchRequest,
    *,
    epoch: str,
    clock: Clock,
    submit: Submit | None = None,
) -> Answer:
    """The answer of a search, its items as encoded JSON (`msgspec.Raw`): encode it with msgspec.

    `submit` runs what reads blocks in another thread, ahead of the search.

    The deadline is looked at after each chunk and each hit, and at least one chunk is done. An
    answer cut by it, or by its size, has `partial` true and a `next` to go on from. Where blocks
    that may hold hits cannot be read, `damaged` names their offsets.

    Raises
    ------
    BadPattern
        The query is not RE2 syntax, or costs too much.
    BadCursor
        `before` is of another log, or newer than its newest item.
    """
    started = clock()
    deadline = started + request.deadline_ms / 1000
    selection, scanned = request.selection(), Scanned()
    before = before_of(snapshot, request.before, epoch)
    steps = descend(snapshot, selection, before, scanned, clock=clock, submit=submit)
    walk = _Walk(snapshot.oldest, lambda: clock() >= deadline)
    answer: Answer = {}
    if request.count_only:
        answer["count"] = walk.count(steps)
    else:
        render = _hit(snapshot, request, selection, epoch, scanned)
        answer["items"] = walk.page(steps, request.limit, render)
    return answer | {
        "next": None if walk.next is None else f"{epoch}:{walk.next}",
        "as_of": f"{epoch}:{snapshot.newest}",
        "partial": walk.partial,
        "elapsed_ms": round((clock() - started) * 1000, 3),
        "scanned": {
            "blocks": scanned.blocks,
            "skipped": scanned.skipped,
            "bytes": scanned.nbytes,
        },
        **_damaged(scanned),
    }


def latest(
    snapshot: Snapshot,
    wish: Filter,
    *,
    limit: int,
    before: str | None = None,
    epoch: str,
    clock: Clock,
) -> Answer:
    """The newest items that pass, as encoded JSON; raises BadCursor as `search`.

    Where passing items are so rare that a second is not enough, the page is short and has a `next`.
    """
    deadline = clock() + _LATEST_DEADLINE_S
    start = before_of(snapshot, before, epoch)
    walk = _Walk(snapshot.oldest, lambda: clock() >= deadline)
    scanned = Scanned()
    steps = descend(snapshot, Selection(wish), start, scanned, clock=clock)
    items = walk.page(steps, limit, lambda block, i: _item(epoch, block, i))
    return {
        "items": items,
        "next": None if walk.next is None else f"{epoch}:{walk.next}",
        "as_of": f"{epoch}:{snapshot.newest}",
        **_damaged(scanned),
    }


def _damaged(scanned: Scanned) -> Answer:
    """What of the range looked at could not be read, newest first; nothing where all could."""
    ranges = [{"first": first, "last": last} for first, last in scanned.missing]
    return {"damaged": ranges} if ranges else {}


class _Walk:
    """Takes steps until the page is full or time is up; below offset `next` there may be more."""

    def __init__(self, oldest: int, expired: Callable[[], bool]) -> None:
        self.next: int | None = None
        self.partial = False
        self._oldest = oldest
        self._expired = expired

    def count(self, steps: Iterable[Step]) -> int:
        """How many items pass."""
        count = 0
        for step in steps:
            count += len(step.found)
            if self._expired() and self._stop(step.floor, partial=True):
                break
        return count

    def page(self, steps: Iterable[Step], limit: int, render: Render) -> list[msgspec.Raw]:
        """Up to `limit` rendered items."""
        items: list[msgspec.Raw] = []
        room = MAX_ANSWER_BYTES
        for step in steps:
            for block, i in step.hits():
                piece = render(block, i)
                items.append(msgspec.Raw(piece))
                room -= len(piece)
                full = len(items) == limit
                if full or room <= 0 or self._expired():
                    self._stop(block.first_offset + i, partial=not full)
                    return items
            if self._expired() and self._stop(step.floor, partial=True):
                return items
        return items

    def _stop(self, floor: int, *, partial: bool) -> bool:
        """Note where to go on; False where nothing is left anyway."""
        if floor <= self._oldest:
            return False
        self.next, self.partial = floor, partial
        return True


def before_of(snapshot: Snapshot, text: str | None, epoch: str) -> int:
    """The offset below which a page begins; raises BadCursor as `search`."""
    if text is None:
        return snapshot.newest + 1
    cursor = Cursor.parse(text)
    if cursor.epoch != epoch:
        raise BadCursor(f"cursor {text} is of another log; this one is {epoch}")
    if cursor.offset > snapshot.newest:
        raise BadCursor(f"cursor {text} is newer than the newest item, {epoch}:{snapshot.newest}")
    return cursor.offset


def _item(epoch: str, block: Block, i: int) -> bytes:
    return encode_item(epoch, block.first_offset + i, block.ingested_at(i), block.line(i))


def _readable(snapshot: Snapshot, offset: int, scanned: Scanned) -> tuple[float, bytes] | None:
    """The item where its block can be read; else that is noted."""
    try:
        return snapshot.item(offset)
    except UnavailableBlock as exc:
        scanned.miss(exc)
    return None


def _hit(
    snapshot: Snapshot,
    request: SearchRequest,
    selection: Selection,
    epoch: str,
    scanned: Scanned,
) -> Render:
    """How a hit is written: the item with `line`, `matches` and, if asked for, its neighbours.

    Neighbours that cannot be read are left out and noted in `scanned`.
    """
    matcher = None if request.invert else selection.matcher

    def neighbours(offsets: range) -> bytes:
        found = ((offset, _readable(snapshot, offset, scanned)) for offset in offsets)
        return b",".join(encode_item(epoch, offset, *item) for offset, item in found if item)

    def render(block: Block, i: int) -> bytes:
        line, offset, n = block.line(i), block.first_offset + i, request.context
        parts = [
            encode_item(epoch, offset, block.ingested_at(i), line)[:-1],
            b',"line":',
            _encode(line.decode()),
            b',"matches":',
            _encode(matcher.spans(line) if matcher else []),
        ]
        if n:
            before, after = range(offset - n, offset), range(offset + 1, offset + n + 1)
            parts += [b',"context":{"before":[', neighbours(before)]
            parts += [b'],"after":[', neighbours(after), b"]}"]
        return b"".join((*parts, b"}"))

    return render
