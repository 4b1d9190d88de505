"""Between a feed and the log: a bounded queue, emptied in small batches, in order.

Items leave the queue's front only for the batch in hand, and that batch is tried again as long as
its error says that this may help. When the queue is full its oldest items go, and are counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

Emit = Callable[[list[dict[str, Any]]], Awaitable[object]]

QUEUE_ITEMS = 10_000
BATCH_ITEMS = 1_000
BATCH_WAIT_S = 0.05  # trades come in bursts; a commit each would cost a disk flush each
RETRY_MIN_S, RETRY_MAX_S = 0.1, 5.0

log = logging.getLogger(__name__)


class Outbox:
    """Hands items to `emit`, never more than one batch at a time."""

    def __init__(self, emit: Emit, *, queue_items: int = QUEUE_ITEMS) -> None:
        self._emit = emit
        self._limit = queue_items
        self._queue: deque[dict[str, Any]] = deque()
        self._filled = asyncio.Event()
        self.emitted = 0
        self.dropped = 0
        self.errors = 0
        self.last_error: str | None = None

    def put(self, items: Sequence[dict[str, Any]]) -> None:
        """Queue items; never waits."""
        self._queue.extend(items)
        while len(self._queue) > self._limit:
            self._queue.popleft()
            self.dropped += 1
        if items:
            self._filled.set()

    async def run(self) -> None:
        """Emit forever."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(BATCH_WAIT_S)
            while self._queue:
                batch = list(islice(self._queue, BATCH_ITEMS))
                for _ in batch:
                    self._queue.popleft()
                await self._deliver(batch)
            self._filled.clear()

    async def _deliver(self, batch: list[dict[str, Any]]) -> None:
        pause_s = RETRY_MIN_S
        while True:
            try:
                await self._emit(batch)
            # Whatever the receiver's error is, the feed has to go on; it shows in the state.
            except Exception as exc:
                self.errors += 1
                self.last_error = f"{type(exc).__name__}: {exc}"[:300]
                if not getattr(exc, "retryable", False):
                    self.dropped += len(batch)
                    log.exception("a batch of %d items was refused and dropped", len(batch))
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_MAX_S)
            else:
                self.emitted += len(batch)
                return
