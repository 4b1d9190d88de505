"""What a webhook is to send next: the items after its cursor, or a gap, as one request's body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from context.damage import LostBlock
from context.items import Cursor, encode_item
from context.query import Selection
from context.scan import read_forward
from context.snapshot import Snapshot

MAX_ITEMS, MAX_BYTES = 500, 1 << 20  # of one delivery
MAX_SCAN_BYTES = 4 << 20  # looked at in one step


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request to make: items, or a gap. `cursor` is where reading continues after it."""

    id: str
    cursor: Cursor
    count: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads a log for one webhook."""

    epoch: str
    hook_id: str
    wish: Selection

    def after(
        self, snapshot: Snapshot, after: Cursor, until: int | None = None
    ) -> Delivery | Cursor:
        """What is due after a cursor; a mere cursor where nothing matched up to there.

        None of it lies beyond `until`. Raises UnreadableBlock where the disk gives nothing now.
        """
        if after.epoch != self.epoch:
            return self._gap(after, Cursor(self.epoch, snapshot.oldest - 1))
        last = snapshot.newest if until is None else until
        there = snapshot.following(after.offset)
        if there > after.offset + 1:
            return self._gap(after, Cursor(self.epoch, min(there - 1, last)))
        limits = {"max_items": MAX_ITEMS, "max_bytes": MAX_BYTES, "max_scan_bytes": MAX_SCAN_BYTES}
        try:
            found, reached = read_forward(snapshot, after.offset, self.wish, **limits)
        except LostBlock as lost:
            return self._gap(after, Cursor(self.epoch, min(lost.last, last)))
        cursor = Cursor(self.epoch, min(reached, last))
        items = [encode_item(self.epoch, o, at, line) for o, at, line in found if o <= last]
        return self._delivery(after, cursor, items) if items else cursor

    def _gap(self, after: Cursor, last: Cursor) -> Delivery:
        first = Cursor(after.epoch, after.offset + 1)
        return self._delivery(after, last, gap={"missed_from": str(first), "missed_to": str(last)})

    def _delivery(
        self,
        after: Cursor,
        cursor: Cursor,
        items: Sequence[bytes] = (),
        gap: dict[str, str] | None = None,
    ) -> Delivery:
        # Both ends: more items are another delivery, which no receiver may take for this one.
        delivery_id = f"{self.hook_id}.{after.epoch}.{after.offset + 1}.{cursor.offset}"
        body = msgspec.json.encode(
            {
                "webhook": self.hook_id,
                "delivery_id": delivery_id,
                "items": [msgspec.Raw(item) for item in items],
                "gap": gap,
                "cursor": str(cursor),
            }
        )
        return Delivery(delivery_id, cursor, len(items), body)
