"""From a feed's specification to the feed that runs."""

from __future__ import annotations

from typing import Any, Protocol

from context.adapters.feed_outbox import Emit
from context.adapters.feed_simulated import SimulatedFeed
from context.adapters.feed_websocket import WebSocketFeed
from context.feeds import CONNECTORS, SIMULATED, FeedSpec


class Feed(Protocol):
    """A source of items that runs until cancelled and tells how it fares."""

    async def run(self) -> None:
        """Receive and emit until cancelled."""

    def state(self) -> dict[str, Any]:
        """What an operator wants to know."""


def open_feed(spec: FeedSpec, emit: Emit) -> Feed:
    """The feed of a specification, not yet running; `emit` stores a list of items.

    An error of `emit` with a true `retryable` makes the feed keep the items and try again.
    """
    if spec.exchange == SIMULATED:
        return SimulatedFeed(spec.symbols, emit)
    return WebSocketFeed(CONNECTORS[spec.exchange](spec.symbols), emit)
