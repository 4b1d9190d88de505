"""Plays the simulated market in real time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from context.adapters.feed_outbox import Emit, Outbox
from context.feeds.simulated import SOURCE, Market

TICK_S = 0.05


class SimulatedFeed:
    """The random market as a feed; same interface as WebSocketFeed."""

    def __init__(self, symbols: Sequence[str], emit: Emit, *, seed: int | None = None) -> None:
        self._symbols = tuple(symbols)
        self._outbox = Outbox(emit)
        self._since = time.time()
        self._last = time.monotonic()
        self._market = Market(symbols, random.Random(seed), self._since)

    async def run(self) -> None:
        """Trade and emit until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run())
            tasks.create_task(self._trade_forever())

    async def _trade_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._outbox.put(list(self._market.trades(time.time())))
            self._last = time.monotonic()

    def state(self) -> dict[str, Any]:
        """As WebSocketFeed.state."""
        return {
            "feed": f"{SOURCE}:{','.join(self._symbols)}",
            "state": "live",
            "since": self._since,
            "last_message_age_s": time.monotonic() - self._last,
            "items": self._outbox.emitted,
            "errors": self._outbox.errors,
            "reconnects": 0,
            "dropped": self._outbox.dropped,
            "last_error": self._outbox.last_error,
        }
