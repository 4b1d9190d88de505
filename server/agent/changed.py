"""Wakes the tasks that wait for what comes into the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Condition = Callable[[], object]


class Changed:
    """A change of what lives in the event loop; telling of one costs a look at each who waits."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], Condition] = {}

    def tell(self) -> None:
        """Something changed: whoever waits for that goes on."""
        for future, condition in list(self._waiting.items()):
            if not future.done() and condition():
                future.set_result(None)

    async def wait_for(self, condition: Condition) -> None:
        """Wait until the condition holds."""
        while not condition():
            await self.next(condition)

    async def next(self, condition: Condition = lambda: True) -> None:
        """Wait for the next change after which the condition holds."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = condition
        try:
            await future
        finally:
            del self._waiting[future]
