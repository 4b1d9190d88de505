"""Lets go of what the retention rules and the disk budget no longer keep, every now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from context.adapters.disk_room import used_bytes
from context.errors import ContextError
from context.retention import expired, over_budget, parse_rules, superseded
from context.sealed import Head
from server.agent.node import Node

log = logging.getLogger(__name__)
AT_ONCE = 512  # blocks: between two such steps other work gets its turn


async def keep(node: Node) -> None:
    """Look after the log for ever."""
    while True:
        try:
            again = await _round(node)
        except (ContextError, OSError) as exc:  # the next round tries again
            log.warning("retention waits", extra={"reason": str(exc)})
            again = False
        if not again:
            await asyncio.sleep(node.settings.retention_interval_s)


async def _round(node: Node) -> bool:
    """Drop what is due, at most `AT_ONCE` blocks; True where there is more."""
    due, why = await asyncio.to_thread(_due, node)
    now, later = due[:AT_ONCE], due[AT_ONCE:]
    gone = {head.bounds.first_offset for head in now}
    kept = [head for head in node.archive.heads() if head.bounds.first_offset not in gone]
    lost = superseded(list(node.archive.lost.values()), kept)
    if now or lost:
        await _drop(node, now, lost, why)
    return bool(later)


def _due(node: Node) -> tuple[list[Head], str]:
    """Blocks to drop, oldest first, and why."""
    settings, heads = node.settings, node.archive.heads()
    gone = expired(heads, parse_rules(settings.retention), now=time.time())
    if gone:
        return gone[::-1], "retention"
    node.disk_used = used_bytes(settings.data_dir)
    budget = settings.disk_budget_mb << 20
    return over_budget(heads, node.disk_used - budget if budget else 0), "disk_budget_mb"


async def _drop(node: Node, heads: Sequence[Head], lost: Sequence[Head], why: str) -> None:
    """The index forgets first: nobody is sent to a block that is gone."""
    forget = node.committer.between(lambda: node.index.drop(heads, lost))
    await asyncio.wrap_future(forget)
    await asyncio.wrap_future(node.sealer.drop(heads, lost))
    items = sum(head.bounds.count for head in heads)
    node.dropped_items += items
    for head in heads:
        for name, count in head.types.items():
            node.metrics.dropped.labels(name).inc(count)
    if heads:
        last = max(head.bounds.last_offset for head in heads)
        log.info("dropped", extra={"why": why, "blocks": len(heads), "items": items, "to": last})
