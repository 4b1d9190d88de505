"""Gives back the memory that a time of many items took, once it is over."""

from __future__ import annotations

import asyncio
import time

from context.adapters.malloc import give_back
from server.agent.node import Node

CHECK_S = 10.0
MANY = 10_000  # items a second, in the mean of as many seconds; below, memory hardly grows


async def rest(node: Node) -> None:
    """Look for such times for ever."""
    busy = False
    while True:
        await asyncio.sleep(CHECK_S)
        many = node.metrics.rates.per_second(time.time(), int(CHECK_S)) >= MANY
        if busy and not many:
            await asyncio.to_thread(give_back)
        busy = many
