"""Work that only the leader does: begun with each of its reigns, ended with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from nodes.leadership import Leadership

log = logging.getLogger(__name__)


async def while_leading(
    leadership: Leadership, work: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Run `work` for as long as this node leads, anew in each reign; it is cancelled in between.

    What it raises ends it until the next reign.
    """
    while True:
        await _until(leadership, leading=True)
        task = asyncio.ensure_future(work())
        try:
            await _until(leadership, leading=False)
        finally:
            task.cancel()
            for fault in await asyncio.gather(task, return_exceptions=True):
                if isinstance(fault, Exception):
                    log.error("the leader's work ended", exc_info=fault)


async def _until(leadership: Leadership, *, leading: bool) -> None:
    async with leadership.changed:
        await leadership.changed.wait_for(lambda: leadership.leading is leading)
