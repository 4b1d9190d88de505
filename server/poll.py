"""GET /api/context/poll: the long poll, for whoever can hold no connection open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
from flask import Response, current_app, request
from prometheus_client import CollectorRegistry, Gauge

from context.errors import RateLimited
from context.items import Cursor
from context.request import parse_poll
from server.live import Delivery, Gap, LiveFeed, Subscription

MAX_POLLS = 2000  # waiting in one web process; each holds a green thread and a connection
SLICE_S = 1.0  # how late a waiting poll notices that the process is to stop


class Polls:
    """The polls that wait in this process: bounded and counted."""

    def __init__(self, registry: CollectorRegistry, most: int = MAX_POLLS) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._waiting = Gauge("context_polls", "Long polls being answered", registry=registry)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Be one of them; raises RateLimited where too many wait."""
        if not self._room.acquire(blocking=False):
            raise RateLimited("too many long polls wait here; retry in a second")
        try:
            with self._waiting.track_inprogress():
                yield
        finally:
            self._room.release()


def poll() -> Response:
    """Items that follow a cursor: at once where there are some, else when they come."""
    feed: LiveFeed = current_app.extensions["live_feed"]
    in_flight = current_app.extensions["in_flight"]
    asked = parse_poll(request.args.to_dict())
    with current_app.extensions["polls"].one():
        subscription = Subscription(feed, asked.stream())
        found = wait(subscription, asked.wait_s, stopping=lambda: in_flight.draining)
    body = encode(found, asked.limit, Cursor(feed.epoch, subscription.offset), subscription.as_of)
    headers = {"Cache-Control": "no-store"}
    return Response(body, mimetype="application/json", headers=headers)


def wait(
    subscription: Subscription, wait_s: float, stopping: Callable[[], bool]
) -> Delivery | Gap | None:
    """What comes next, or None after so long; at once where this process is to stop."""
    deadline = time.monotonic() + wait_s
    while True:
        left = deadline - time.monotonic()
        found = subscription.next(max(0.0, min(left, SLICE_S)))
        if found is not None or left <= SLICE_S or stopping():
            return found


def encode(found: Delivery | Gap | None, limit: int, reached: Cursor, as_of: Cursor) -> bytes:
    """The answer. A gap comes alone: what follows it is the next poll's."""
    every = found.items() if isinstance(found, Delivery) else []
    items = every[:limit]
    if len(items) < len(every):
        reached = Cursor(reached.epoch, items[-1][0])
    gap = None
    if isinstance(found, Gap):
        gap = {"missed_from": found.missed_from, "missed_to": found.missed_to}
    answer = {
        "items": [msgspec.Raw(item) for _, item in items],
        "next": str(reached),
        "gap": gap,
        "as_of": str(max(as_of, reached)),
    }
    return msgspec.json.encode(answer)
