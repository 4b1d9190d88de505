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
        left: list[tuple[int, int]] = []
        for first in range(0, len(self._links), BREATH):
            if first:
                breathe()  # when something may be written to them
            left += self._some(frame, first)
        return left

    def _some(self, frame: Any, first: int) -> list[tuple[int, int]]:
        """Offer it to those between two breaths."""
        some = self._links[first : first + BREATH]
        answers = ((at, each.offer(frame)) for at, each in enumerate(some, first))
        return [(at, answer) for at, answer in answers if answer != TAKEN]


class Burst(OneByOne):
    """Connections of one poller, each of them once, to which no other thread writes.

    Whatever else is written to them is written whole or waits in them, and they say so: where
    nothing waits, the bytes go straight to the kernel.
    """

    def __init__(self, connections: Sequence[Connection]) -> None:
        super().__init__(connections)
        self._connections, self._poller = connections, connections[0].poller
        self._all = frozenset(connections)
        self._sends = [each.send for each in connections]

    def _some(self, frame: bytes, first: int) -> list[tuple[int, int]]:
        if self._poller.any_blocked(self._all):
            return super()._some(frame, first)
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


def to_all(links: Sequence[Link]) -> OneByOne:
    """How to offer the same frames to all of these."""
    connections = [link for link in links if isinstance(link, Connection)]
    if connections and len(connections) == len(links) and connections[0].poller.alone:
        return Burst(connections)
    return OneByOne(links)
