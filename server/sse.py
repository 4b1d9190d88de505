"""Server-Sent Events (WHATWG HTML, section 9.2): the stream of one follower."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from flask import Response, current_app, request

from context.errors import InvalidRequest
from context.request import parse_live
from server.beats import Beats
from server.connections import Connection, Poller
from server.fanout import Fanout
from server.forms import EventStream
from server.groups import Follower
from server.live import LiveFeed
from server.multiplex import Multiplex, encode, parse_subscriptions
from server.takeover import CARRIER, Carrier

HEARTBEAT_S = 15.0
RETRY_MS = 1000
NOT_KEPT = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
# The end of the connection ends the answer: without chunks a frame is the same for everybody.
HEADERS = NOT_KEPT | {"Connection": "close"}


class EventStreams:
    """Serves event streams on connections taken over from the WSGI server."""

    def __init__(self, feed: LiveFeed, fanout: Fanout, poller: Poller, heartbeats: Beats) -> None:
        self._feed, self._fanout, self._poller = feed, fanout, poller
        self._heartbeats = heartbeats

    def view(self) -> Response:
        """GET /api/context/stream."""
        # An EventSource that reconnects sends both: the header is newer than the address.
        args = request.args.to_dict()
        args["after"] = request.headers.get("Last-Event-ID") or args.get("after") or ""
        many = request.args.getlist("subscription")
        if many:
            frames = _many(self._feed, args, many)
            return Response(frames, mimetype="text/event-stream", headers=NOT_KEPT)
        asked = parse_live(args)
        if asked.ack:
            raise InvalidRequest("ack goes with Socket.IO only: events cannot be acknowledged")
        if request.method != "HEAD":
            carrier: Carrier = request.environ[CARRIER]
            follower, _ = self._fanout.prepare(asked, EventStream(self._feed.epoch))
            carrier.begin = partial(self._begin, follower)
        return Response(mimetype="text/event-stream", headers=HEADERS)

    def _begin(
        self, follower: Follower, sock: socket.socket, head: bytes, left: Callable[[], None]
    ) -> None:
        connection = Connection(sock, self._poller)

        def on_close() -> None:
            self._fanout.leave(follower)
            left()

        connection.on_close = on_close
        connection.post(head + b"retry: %d\n\n" % RETRY_MS)
        self._poller.add(connection)
        self._heartbeats.add(partial(_heartbeat, connection))
        self._fanout.begin(follower, connection)


def _heartbeat(connection: Connection) -> bool:
    connection.offer(b":\n\n")
    return connection.open


def stream() -> Response:
    """GET /api/context/stream."""
    streams: EventStreams = current_app.extensions["event_streams"]
    return streams.view()


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
