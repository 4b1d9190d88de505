"""Folds the log's tensor calculations into the registry: all of it at the start, then what comes.

Beside the commits, never in their way: a hash is known some milliseconds after its item.
"""

from __future__ import annotations

import asyncio
import logging

from context.errors import ContextError
from context.filter import Filter
from context.query import Selection
from context.search import read_on
from server.agent.node import Node

log = logging.getLogger(__name__)
PAUSE_S = 0.1  # gathers what comes meanwhile: many items at once cost less each
AGAIN_S = 1.0
STEP_ITEMS, STEP_BYTES, STEP_SCAN_BYTES = 2000, 2 << 20, 4 << 20  # some 10 ms
_WISH = Selection(Filter(types=frozenset({"tensor_math"})))


async def follow(node: Node) -> None:
    """Follow the log for ever."""
    registry = node.tensors
    while True:
        try:
            newest = node.snapshot().newest
            while registry.folded < newest:
                started = node.loop.time()
                await asyncio.to_thread(_step, node)
                await asyncio.sleep(node.loop.time() - started)  # at most half of a core
        except ContextError as exc:  # retention took a block from under the reader
            log.warning("tensor hashes wait", extra={"reason": str(exc)})
            await asyncio.sleep(AGAIN_S)
            continue
        await asyncio.sleep(PAUSE_S)
        await node.changed.wait_for(lambda: node.ring.newest > registry.folded)


def _step(node: Node) -> None:
    items, reached = read_on(
        node.snapshot(),
        node.tensors.folded,
        _WISH,
        max_items=STEP_ITEMS,
        max_bytes=STEP_BYTES,
        max_scan_bytes=STEP_SCAN_BYTES,
    )
    node.tensors.fold(items, reached)
