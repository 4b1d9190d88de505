"""Calls that are due a fixed time after each was added: heartbeats and pings of all clients."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)
TICK_S = 0.25  # how late a call may be


class Beats:
    """One thread for all; as the time is the same, whoever came first is due first."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due: deque[tuple[float, Callable[[], bool]]] = deque()

    def start(self) -> None:
        """Make calls from now on."""
        threading.Thread(target=self._run, name="beats", daemon=True).start()

    def add(self, call: Callable[[], bool]) -> None:
        """Call after `every_s`, and again as long as it returns True."""
        self._due.append((time.monotonic() + self._every_s, call))

    def _run(self) -> None:
        while True:
            time.sleep(TICK_S)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, call = self._due.popleft()
                try:
                    if call():
                        self.add(call)
                except Exception:
                    log.exception("a heartbeat failed")
