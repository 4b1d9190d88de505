"""Server-Sent Events (WHATWG HTML, section 9.2): frames, and the stream of one subscriber."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
from flask import Response, current_app, request

from context.errors import InvalidRequest
from context.request import parse_stream
from server.live import Delivery, Gap, LiveFeed, Subscription
from server.multiplex import Multiplex, encode, parse_subscriptions

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
    many = request.args.getlist("subscription")
    if many:
        frames = _many(feed, args, many)
    else:
        frames = _frames(feed, Subscription(feed, parse_stream(args)))
    return Response(
        frames,
        mimetype="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _many(feed: LiveFeed, args: Mapping[str, str], subscriptions: Sequence[str]) -> Iterator[bytes]:
    alone = next(iter(args.keys() - {"subscription", "after"}), None)
    if alone:
        raise InvalidRequest(f"{alone[:80]!r} belongs into a subscription here")
    wishes = parse_subscriptions(subscriptions, args["after"] or None)
    return _merged(feed, Multiplex(feed, wishes))


def _merged(feed: LiveFeed, together: Multiplex) -> Iterator[bytes]:
    feed.subscribers += 1
    try:
        yield b"retry: %d\n\n" % RETRY_MS
        while True:
            yield encode(feed.epoch, together.next(HEARTBEAT_S)) or b":\n\n"
    finally:
        feed.subscribers -= 1


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
