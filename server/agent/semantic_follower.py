"""Hands the sentences in the log to the semantic worker: all of it at first, then what comes.

One step at a time, each begun when the worker has taken in the last one: nothing queues up here
however slow the worker is, and it alone knows how far it has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from context.errors import ContextError
from context.filter import Filter
from context.query import Selection
from context.search import read_on
from context.semantic_text import SILENT, Passage, passage_of
from server.agent.node import Node
from server.semantic.client import SemanticClient

log = logging.getLogger(__name__)
PAUSE_S = 0.05  # gathers what comes meanwhile
AGAIN_S = 0.5
ASK_S = 1.0  # how often an idle worker is asked whether it still has what it was given
BEGIN_S, ADD_S = 30.0, 300.0
STEP_ITEMS, STEP_BYTES, STEP_SCAN_BYTES = 500, 1 << 20, 4 << 20


async def follow_sentences(node: Node, worker: SemanticClient) -> None:
    """Follow the log for ever, through restarts of the worker."""
    told = ""
    while True:
        try:
            applied = await worker.begin(node.log.epoch, within_s=BEGIN_S)
            await _catch_up(node, worker, applied)
            told = ""
        except ContextError as exc:  # the worker is away, or retention took a block meanwhile
            if told != exc.detail:
                log.info("search by meaning waits", extra={"reason": exc.detail})
            told = exc.detail
            await asyncio.sleep(AGAIN_S)
            continue
        await asyncio.sleep(PAUSE_S)
        await _changed(node, worker.applied)


async def _changed(node: Node, applied: int) -> None:
    """Wait for an item after the offset, but no longer than until the worker is asked again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ASK_S):
            await node.changed.wait_for(lambda: node.ring.newest > applied)


async def _catch_up(node: Node, worker: SemanticClient, applied: int) -> None:
    """Hand over everything that lies after an offset."""
    while applied < node.snapshot().newest:
        started = node.loop.time()
        passages, reached = await asyncio.to_thread(_step, node, applied)
        read_s = node.loop.time() - started
        oldest = node.snapshot().oldest
        applied = await worker.add(applied, passages, reached, oldest, within_s=ADD_S)
        await asyncio.sleep(read_s)  # at most half of a core


def _step(node: Node, after: int) -> tuple[list[Passage], int]:
    snapshot = node.snapshot()
    spoken = frozenset(snapshot.tally().types) - SILENT
    items, reached = read_on(
        snapshot,
        after,
        Selection(Filter(types=spoken)),
        max_items=STEP_ITEMS,
        max_bytes=STEP_BYTES,
        max_scan_bytes=STEP_SCAN_BYTES,
    )
    found = (passage_of(offset, line) for offset, _, line in items)
    return [passage for passage in found if passage is not None], reached
