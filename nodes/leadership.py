"""Who leads, as the rest of a node sees it: one code path for a single node and for a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nodes.errors import UnknownNode
from nodes.heartbeat import Heartbeat
from nodes.protocol import PROTOCOL


@dataclass(frozen=True, slots=True)
class Peer:
    """A node by its name and the address of its web interface."""

    id: str
    url: str


@dataclass(frozen=True, slots=True)
class Member:
    """A node as this one sees it."""

    beat: Heartbeat  # the last one heard
    role: str  # "leader", "follower" or "observer"
    state: str  # "alive", "suspect" or "dead"
    heartbeat_age_s: float

    @property
    def peer(self) -> Peer:
        """Its name and address."""
        return Peer(self.beat.id, self.beat.url)


class Leadership(Protocol):
    """Who leads now. Read it in the event loop; `changed` is notified of every change."""

    changed: asyncio.Condition

    @property
    def term(self) -> int:
        """The newest term this node knows; the fencing token of its writes while it leads."""

    @property
    def leading(self) -> bool:
        """Whether this node leads and has applied all that earlier leaders wrote."""

    @property
    def leader(self) -> Peer | None:
        """Who leads, as far as this node knows."""

    @property
    def peer_latency_ms(self) -> float | None:
        """Median round trip to the other nodes; None where there is none to ask."""

    @property
    def speaks(self) -> int:
        """The version in which items are written: that of the oldest node which can be followed."""

    def protocol_of(self, node_id: str) -> int:
        """The version of a node; this one's own where it was never heard."""

    @property
    def newest_offset(self) -> int:
        """Newest item that another node told to have; -1 where none told."""

    def members(self) -> list[Member]:
        """All nodes heard of, by name, this one included."""

    async def start(self, report: Callable[[], Heartbeat]) -> None:
        """Take part; `report` tells how this node is."""

    async def hand_to(self, node_id: str) -> int:
        """Make a node the leader; returns its term. Raises UnknownNode, HandOffRefused."""

    async def stepped_out(self, term: int) -> None:
        """An append was refused, as a newer term has written: stop leading."""

    async def stop(self) -> None:
        """Hand over where this node leads, and leave."""


class SingleLeadership:
    """A single node leads for as long as it runs; its term came with its data directory."""

    def __init__(self, peer: Peer, term: int) -> None:
        self.changed = asyncio.Condition()
        self._peer, self._term = peer, term
        self._report: Callable[[], Heartbeat] = lambda: Heartbeat(id=peer.id, url=peer.url)

    @property
    def term(self) -> int:
        """The term of this start."""
        return self._term

    @property
    def leading(self) -> bool:
        """Always."""
        return True

    @property
    def leader(self) -> Peer:
        """This node."""
        return self._peer

    @property
    def peer_latency_ms(self) -> None:
        """There are no others."""

    @property
    def speaks(self) -> int:
        """Its own version."""
        return PROTOCOL

    def protocol_of(self, node_id: str) -> int:
        """There are no others."""
        return PROTOCOL

    @property
    def newest_offset(self) -> int:
        """There are no others."""
        return -1

    def members(self) -> list[Member]:
        """This node alone."""
        return [Member(self._report(), "leader", "alive", 0.0)]

    async def start(self, report: Callable[[], Heartbeat]) -> None:
        """Keep what tells of this node."""
        self._report = report

    async def hand_to(self, node_id: str) -> int:
        """It leads already. Raises UnknownNode for any other."""
        if node_id != self._peer.id:
            raise UnknownNode(f"there is no node {node_id[:80]!r} here")
        return self._term

    async def stepped_out(self, term: int) -> None:
        """Nobody else writes here."""

    async def stop(self) -> None:
        """Nobody is there to take over."""
