"""How a node takes part in the election: what it tells of itself, and who leads it."""

from __future__ import annotations

from nodes.capabilities import WEIGHTS, score_parts, total
from nodes.heartbeat import Heartbeat
from nodes.leadership import Peer
from server.agent.node import Node
from server.config import Settings


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
        feeds=[feed() for feed in node.feeds],
    )
