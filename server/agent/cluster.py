"""How a node takes part in the election: what it tells of itself, and who leads it."""

from __future__ import annotations

import asyncio

from nodes.adapters.probe import CapabilityProbe
from nodes.capabilities import WEIGHTS, score_parts, total
from nodes.heartbeat import Heartbeat
from nodes.leadership import Peer
from server.agent.node import Node
from server.agent.trading_brokers import reachable
from server.config import Settings

MEASURE_S = 5.0


async def measure(node: Node, probe: CapabilityProbe) -> None:
    """Measure for ever what this node can tell of itself."""
    while True:
        measured = await asyncio.to_thread(probe.measure)
        latency_ms = node.leadership.peer_latency_ms
        if latency_ms is not None:
            measured["peer_latency_ms"] = latency_ms
        measured["models"] = node.bridge.names()
        measured["trading_systems"] = reachable(node.settings)
        node.capabilities = measured
        await asyncio.sleep(MEASURE_S)


def own_peer(settings: Settings) -> Peer:
    """This node as others reach it."""
    return Peer(settings.node_id, f"http://{settings.host}:{settings.port}")


def heartbeat(node: Node) -> Heartbeat:
    """What this node tells of itself now."""
    peer = own_peer(node.settings)
    parts = score_parts(node.capabilities, {**WEIGHTS, **node.settings.score_weights})
    return Heartbeat(
        id=peer.id,
        url=peer.url,
        term=node.term,
        leading=node.leadership.leading,
        score=total(parts),
        score_parts=parts,
        capabilities=node.capabilities,
        applied_offset=node.snapshot().newest,
        full=node.room.full,
        feeds=[feed() for feed in node.feeds],
    )
