"""Server-Sent Events (WHATWG HTML, section 9.2): frames, and the stream of one subscriber."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from flask import Response, current_app, request

from context.request import parse_stream
from server.live import Delivery, Gap, LiveFeed, Subscription

HEARTBEAT_S = 15.0
RETRY_MS = 1000


def encode_items(epoch: str, delivery: Delivery) -> bytes:
    """One `context` event an item. Item JSON holds no raw newline, so one data line is enough."""
    return b"".join(
        b"event: context\nid: %b:%d\ndata: %b\n\n" % (epoch.encode(), offset, item)
        for offset, item in delivery.items
    )


def encode_gap(gap: Gap) -> bytes:
    """The `gap` event; its id is where reading continues, so a reconnect tells no gap twice."""
    data = msgspec.json.encode({"missed_from": gap.missed_from, "missed_to": gap.missed_to})
    return b"event: gap\nid: %b\ndata: %b\n\n" % (gap.missed_to.encode(), data)


def stream() -> Response:
    """GET /api/context/stream."""
    feed: LiveFeed = current_app.extensions["live_feed"]
    # An EventSource that reconnects sends both: the header is newer than the address.
    args = request.args.to_dict()
    args["after"] = request.headers.get("Last-Event-ID") or args.get("after") or ""
    subscription = Subscription(feed, parse_stream(args))
    return Response(
        _frames(feed, subscription),
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _frames(feed: LiveFeed, subscription: Subscription) -> Iterator[bytes]:
    feed.subscribers += 1
    try:
        yield b"retry: %d\n\n" % RETRY_MS
        while True:
            found = subscription.next(HEARTBEAT_S)
            if found is None:
                yield b":\n\n"
            elif isinstance(found, Gap):
                yield encode_gap(found)
            else:
                yield encode_items(feed.epoch, found)
    finally:
        feed.subscribers -= 1
