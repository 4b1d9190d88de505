"""What this node itself puts into the log: its machine's health, and exchange feeds."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import msgspec

from context.adapters.feeds import Feed, open_feed
from context.errors import ContextError
from context.feeds import parse_spec
from context.ingest import make_item
from context.items import Item
from nodes.adapters.probe import HealthProbe
from server.agent.node import Node
from server.agent.reigns import while_leading

log = logging.getLogger(__name__)


def start_sources(node: Node, probe: HealthProbe) -> None:
    """Start the health sampler, and every configured feed for as long as this node leads."""
    if node.settings.health_interval_s:
        node.spawn(_sample_health(node, probe))
    for text in node.settings.feeds:
        feed = open_feed(parse_spec(text), lambda items: _emit(node, items))
        node.feeds.append(partial(_state, node, feed))
        node.spawn(while_leading(node.leadership, feed.run))


def _state(node: Node, feed: Feed) -> dict[str, Any]:
    """What a feed tells of itself; on a node that does not lead it waits."""
    state = feed.state()
    return state if node.leadership.leading else {**state, "state": "standby"}


async def _emit(node: Node, items: list[dict[str, Any]]) -> None:
    await node.append_items([msgspec.convert(item, Item) for item in items])


async def _sample_health(node: Node, probe: HealthProbe) -> None:
    while True:
        try:
            sample = await asyncio.to_thread(probe.sample)
            item = make_item("system_health", sample, source=node.settings.node_id)
            await node.append_items([item])
        except ContextError as exc:  # a full disk, for instance: the next sample may be stored
            log.warning("health sample not stored", extra={"reason": exc.detail})
        await asyncio.sleep(node.settings.health_interval_s)
