"""Searches by meaning, alone or fused with grep: the only ones that wait for the worker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from context.request import SearchRequest
from context.search import before_of, search
from context.semantic_answer import Found, fused, ranked
from context.snapshot import Snapshot
from server.agent import answers
from server.agent.node import Node
from server.ipc import Answer
from server.semantic.client import SemanticClient, SemanticOff


async def search_by_meaning(node: Node, asked: SearchRequest) -> Answer:
    """POST /api/context/search with mode semantic or hybrid; raises SemanticOff."""
    if node.semantic is None:
        raise SemanticOff(
            f'mode "{asked.mode}" needs a node started with the setting semantic = true '
            "(CONTEXT_SEMANTIC=true); this one searches text only"
        )
    started = time.monotonic()
    wish = _wish(node.snapshot(), asked, node.log.epoch)
    if asked.mode == "hybrid":
        found, text = await asyncio.gather(
            _ask(node, node.semantic, asked, wish), _grep(node, asked)
        )
    else:
        found, text = await _ask(node, node.semantic, asked, wish), {}
    snapshot = node.snapshot()
    items = await node.scan(_items, snapshot, found, text, node.log.epoch, asked.limit)
    applied = node.semantic.applied
    return answers.json(
        {
            "items": items,
            "next": None,
            "as_of": node.cursor(snapshot.newest),
            "partial": text.get("partial", False),
            "elapsed_ms": round((time.monotonic() - started) * 1000, 3),
            "semantic": {"applied_offset": applied, "behind": max(0, snapshot.newest - applied)},
            "scanned": text.get("scanned", {"blocks": 0, "skipped": 0, "bytes": 0}),
        }
    )


async def _ask(
    node: Node, worker: SemanticClient, asked: SearchRequest, wish: dict[str, Any]
) -> Found:
    with node.metrics.semantic_query.time():
        return await worker.search(asked.query, wish, within_s=asked.deadline_ms / 1000)


async def _grep(node: Node, asked: SearchRequest) -> dict[str, Any]:
    return await node.scan(
        search, node.snapshot(), asked, epoch=node.log.epoch, clock=time.monotonic
    )


def _items(
    snapshot: Snapshot, found: Found, text: dict[str, Any], epoch: str, limit: int
) -> list[Any]:
    if text:
        return list(fused(snapshot, text["items"], found, epoch=epoch, limit=limit))
    return list(ranked(snapshot, found, epoch=epoch))


def _wish(snapshot: Snapshot, asked: SearchRequest, epoch: str) -> dict[str, Any]:
    wanted = asked.filter()
    return {
        "limit": asked.limit,
        "oldest": snapshot.oldest,
        "before": before_of(snapshot, asked.before, epoch) if asked.before else None,
        "types": None if wanted.types is None else sorted(wanted.types),
        "source": wanted.source,
        "symbol": wanted.symbol,
        "since": wanted.since,
        "until": wanted.until,
    }
