"""Keeps one exchange connection alive and its trades flowing, forever.

`connecting` -> `live` (messages come) -> `waiting` (back-off) -> `connecting`. A connection that is
silent for half of `silence_s` is asked something it must answer; silent for all of it, it is
replaced. What the exchange repeats afterwards, the connector drops.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from context.adapters.feed_outbox import Emit, Outbox
from context.feeds.errors import FeedError
from context.feeds.trade import Connector

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    silence_s: float = 60.0
    wait_min_s: float = 1.0
    wait_max_s: float = 60.0
    healthy_s: float = 60.0  # a connection this old starts the back-off anew


class WebSocketFeed:
    """One exchange; `emit` stores a list of items and raises where it could not."""

    def __init__(
        self,
        connector: Connector,
        emit: Emit,
        *,
        url: str | None = None,
        timing: Timing | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connector = connector
        self._outbox = Outbox(emit)
        self._url = url or connector.url()
        self._timing = timing or Timing()
        self._jitter = jitter
        self._errors = 0
        self._reconnects = 0
        self._last_error: str | None = None
        self._last_message: float | None = None  # monotonic
        self._enter("connecting")

    async def run(self) -> None:
        """Receive and emit until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._outbox.run())
            tasks.create_task(self._connect_forever())

    def state(self) -> dict[str, Any]:
        """What an operator wants to know; `since` is unix seconds."""
        age = None if self._last_message is None else time.monotonic() - self._last_message
        return {
            "feed": f"{self._connector.name}:{','.join(self._connector.symbols)}",
            "state": self._state,
            "since": self._since,
            "last_message_age_s": age,
            "items": self._outbox.emitted,
            "errors": self._errors + self._outbox.errors,
            "reconnects": self._reconnects,
            "dropped": self._outbox.dropped,
            "last_error": self._last_error or self._outbox.last_error,
        }

    async def _connect_forever(self) -> None:
        failures = 0
        while True:
            self._enter("connecting")
            started = time.monotonic()
            try:
                await self._session()
            # The network, TLS, a proxy, the protocol, a parser's bug: none may end the feed.
            except Exception as exc:
                self._note(f"{type(exc).__name__}: {exc}")
            if time.monotonic() - started >= self._timing.healthy_s:
                failures = 0
            wait_s = min(self._timing.wait_min_s * 2**failures, self._timing.wait_max_s)
            failures = min(failures + 1, 16)
            self._enter("waiting")
            await asyncio.sleep(wait_s * (0.5 + self._jitter() / 2))
            self._reconnects += 1

    async def _session(self) -> None:
        """One connection, until it breaks (raises) or falls silent (TimeoutError)."""
        async with connect(self._url, max_size=MAX_MESSAGE_BYTES, close_timeout=2) as socket:
            for message in self._connector.subscriptions():
                await socket.send(message)
            while True:
                message_in = await self._receive(socket)
                self._last_message = time.monotonic()
                if self._state != "live":
                    self._enter("live")
                try:
                    self._outbox.put(self._connector.parse(message_in, time.time()))
                except FeedError as exc:
                    self._note(exc.detail)

    async def _receive(self, socket: ClientConnection) -> str | bytes:
        half_s = self._timing.silence_s / 2
        try:
            async with asyncio.timeout(half_s):
                return await socket.recv()
        except TimeoutError:
            probe = self._connector.probe()
        if probe:
            await socket.send(probe)
        try:
            async with asyncio.timeout(half_s):
                return await socket.recv()
        except TimeoutError:
            raise TimeoutError(f"no message for {self._timing.silence_s:g} s") from None

    def _note(self, error: str) -> None:
        self._errors += 1
        self._last_error = error[:300]
        log.warning("feed %s: %s", self._connector.name, self._last_error)

    def _enter(self, state: str) -> None:
        self._state = state
        self._since = time.time()
