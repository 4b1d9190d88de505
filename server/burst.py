"""One frame to many links: with as little as can be between two of them.

A send takes the kernel 4 to 8 µs. Looking after each connection as `Connection.offer` does takes
another 2: a lock and several objects that are not in the processor's cache any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from server.connections import REFUSED, TAKEN, Connection

BREATH = 256  # links between two breaths


class Link(Protocol):
    """The way to one follower."""

    def offer(self, frame: Any) -> int:
        """TAKEN, PARTLY (the rest follows by itself) or REFUSED; never waits."""

    def when_free(self, call: Callable[[], None]) -> None:
        """Call once when a frame may be offered again."""


class OneByOne:
    """Links of any kind."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links

    def offer(self, frame: Any, breathe: Callable[[], None]) -> list[tuple[int, int]]:
        """Offer a frame to all; place and answer of each that did not take the whole of it."""
        left = []
        for at, link in enumerate(self._links):
            if at and not at % BREATH:
                breathe()
            if taken := link.offer(frame):
                left.append((at, taken))
        return left


class Burst:
    """Connections of one poller, each of them once, to which no other thread writes.

    Whatever else is written to them is written whole or waits in them, and they say so: where
    nothing waits, the bytes go straight to the kernel.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections, self._poller = connections, connections[0].poller
        self._all = frozenset(connections)
        self._sends = [each.send for each in connections]

    def offer(self, frame: bytes, breathe: Callable[[], None]) -> list[tuple[int, int]]:
        """Offer a frame to all; place and answer of each that did not take the whole of it."""
        left: list[tuple[int, int]] = []
        for first in range(0, len(self._sends), BREATH):
            if first:
                breathe()  # when something may be written to them
            if self._poller.any_blocked(self._all):
                left += self._with_care(frame, first)
            else:
                left += self._at_once(frame, first)
        return left

    def _with_care(self, frame: bytes, first: int) -> list[tuple[int, int]]:
        some = self._connections[first : first + BREATH]
        answers = ((at, each.offer(frame)) for at, each in enumerate(some, first))
        return [(at, answer) for at, answer in answers if answer != TAKEN]

    def _at_once(self, frame: bytes, first: int) -> list[tuple[int, int]]:
        left, size = [], len(frame)
        for at, send in enumerate(self._sends[first : first + BREATH], first):
            try:
                sent = send(frame)
            except OSError as exc:
                if not isinstance(exc, BlockingIOError):
                    self._connections[at].abort()
                left.append((at, REFUSED))
                continue
            if sent != size:
                left.append((at, self._connections[at].sent(frame, sent)))
        return left


def to_all(links: Sequence[Link]) -> Burst | OneByOne:
    """How to offer the same frames to all of these."""
    connections = [link for link in links if isinstance(link, Connection)]
    if connections and len(connections) == len(links) and connections[0].poller.alone:
        return Burst(connections)
    return OneByOne(links)
