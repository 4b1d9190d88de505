"""Who leads, as a web process knows it: told by the agent at every change, so asking is free."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from server.agent_client import AgentClient, AgentUnavailable
from server.ipc import Led

log = logging.getLogger(__name__)
RECONNECT_S = 0.2


class Lead:
    """Follows the agent in a thread of its own; while that is away, what it said last holds."""

    def __init__(self, agent: AgentClient) -> None:
        self.now = Led()
        self.since = 0.0  # monotonic second of the last change
        self._agent = agent
        self._changed = threading.Condition()
        self._listeners: list[Callable[[Led], None]] = []

    def on_change(self, listener: Callable[[Led], None]) -> None:
        """Call `listener` with every change from now on."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Learn who leads, then follow it for ever. Raises AgentUnavailable."""
        self.now = next(self._agent.leadership())
        threading.Thread(target=self._follow, name="lead", daemon=True).start()

    def wait(self, good: Callable[[Led], bool], timeout_s: float) -> bool:
        """Wait until what is known is `good`; False when that did not come in time."""
        with self._changed:
            return self._changed.wait_for(lambda: good(self.now), timeout_s)

    def set(self, led: Led) -> None:
        """Take in what the agent says."""
        with self._changed:
            if led == self.now:
                return
            self.now, self.since = led, time.monotonic()
            self._changed.notify_all()
        log.info("lead", extra={"leader": led.id, "term": led.term, "here": led.here})
        for listener in self._listeners:
            listener(led)

    def _follow(self) -> None:
        while True:
            try:
                for led in self._agent.leadership():
                    self.set(led)
            except AgentUnavailable as exc:
                log.warning("waiting for the agent", extra={"reason": str(exc)})
                time.sleep(RECONNECT_S)
