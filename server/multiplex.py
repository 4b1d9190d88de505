"""Many subscriptions over one event stream: a browser opens at most six connections to a host.

All of them read the same log, so that one cursor stands for all: an event is given once every
subscription has looked at everything up to it, and names those that it is for. Whatever breaks, the
last event's id is where each of them goes on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

import msgspec

from context.errors import InvalidRequest
from context.items import Cursor
from context.request import StreamRequest, parse_stream
from server.live import Gap, LiveFeed, Subscription

MAX_SUBSCRIPTIONS = 100  # of one stream
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def parse_subscriptions(texts: Sequence[str], after: str | None) -> dict[str, StreamRequest]:
    """Wishes by name from texts `NAME:FILTERS`, the filters as in an address.

    Raises InvalidRequest.
    """
    if len(texts) > MAX_SUBSCRIPTIONS:
        raise InvalidRequest(f"a stream may have {MAX_SUBSCRIPTIONS} subscriptions")
    wishes: dict[str, StreamRequest] = {}
    for text in texts:
        name, _, filters = text.partition(":")
        if not _NAME.fullmatch(name) or name in wishes:
            raise InvalidRequest(
                f"subscription {text[:80]!r} must be NAME:FILTERS; a name is 1 to 64 letters, "
                "digits and _.-, and there is one of each"
            )
        asked = parse_stream(dict(parse_qsl(filters)))
        if asked.after:
            raise InvalidRequest("`after` is of the whole stream, not of a subscription")
        wishes[name] = msgspec.structs.replace(asked, after=after)
    return wishes


@dataclass(frozen=True, slots=True)
class Event:
    """An item or a gap at an offset, and the names of the subscriptions that it is for."""

    offset: int
    names: Sequence[str]
    what: bytes | Gap


class _Place:
    """One subscription, and what it has read that others have not reached yet."""

    def __init__(self, name: str, subscription: Subscription) -> None:
        self.name, self.subscription = name, subscription
        self.waiting: list[tuple[int, bytes | Gap]] = []

    def pull(self) -> None:
        found = self.subscription.next(0)
        if isinstance(found, Gap):
            self.waiting.append((Cursor.parse(found.missed_to).offset, found))
        elif found:
            self.waiting += found.items()

    def take(self, floor: int) -> Iterator[tuple[int, bytes | Gap]]:
        count = next((i for i, (at, _) in enumerate(self.waiting) if at > floor), len(self.waiting))
        yield from self.waiting[:count]
        del self.waiting[:count]


class Multiplex:
    """Several subscriptions that move together; only those behind read on, so little waits."""

    def __init__(self, feed: LiveFeed, wishes: Mapping[str, StreamRequest]) -> None:
        """Begin after the wishes' common cursor, or all with what comes from now on."""
        self._feed = feed
        self._places: list[_Place] = []
        after = None
        for name, wish in wishes.items():
            begun = msgspec.structs.replace(wish, after=after or wish.after)
            subscription = Subscription(feed, begun)
            if begun.after is None:
                after = str(subscription.as_of)
            self._places.append(_Place(name, subscription))

    def next(self, timeout_s: float) -> list[Event]:
        """What comes next, in order; nothing where none came in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            floor = self._floor()
            for place in self._places:
                if place.subscription.offset == floor:
                    place.pull()
            events = self._ready(self._floor())
            left = deadline - time.monotonic()
            if events or left <= 0:
                return events
            if self._floor() == floor:
                self._feed.wait(floor, left)

    def _floor(self) -> int:
        """All have looked at everything up to here."""
        return min(place.subscription.offset for place in self._places)

    def _ready(self, floor: int) -> list[Event]:
        found: dict[tuple[int, bool], tuple[bytes | Gap, list[str]]] = {}
        for place in self._places:
            for offset, what in place.take(floor):
                key = (offset, isinstance(what, bytes))  # a gap ends before what stands at its end
                found.setdefault(key, (what, []))[1].append(place.name)
        return [Event(key[0], names, what) for key, (what, names) in sorted(found.items())]


def encode(epoch: str, events: Sequence[Event]) -> bytes:
    """Frames like those of a plain stream, with `subscriptions` as the first member of the data."""
    return b"".join(_frame(epoch, event) for event in events)


def _frame(epoch: str, event: Event) -> bytes:
    if isinstance(event.what, Gap):
        kind = b"gap"
        gap = {"missed_from": event.what.missed_from, "missed_to": event.what.missed_to}
        data = msgspec.json.encode(gap)
    else:
        kind, data = b"context", event.what
    names = msgspec.json.encode(event.names)
    head = b"event: %b\nid: %b:%d\n" % (kind, epoch.encode(), event.offset)
    return b'%bdata: {"subscriptions":%b,%b\n\n' % (head, names, data[1:])
