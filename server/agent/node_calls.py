"""Calls on the node itself: readiness, metrics, membership, emergency stop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from context.errors import NotFound
from context.ingest import make_item
from nodes.capabilities import score
from server.agent import answers
from server.agent.context_calls import body_json
from server.agent.node import Node, NotReady
from server.ipc import Answer, Request

RUNNING = {"emergency_stop": False, "since": None, "reason": None}


async def ready(node: Node, request: Request) -> Answer:
    """GET /readyz."""
    if node.not_ready:
        raise NotReady(f"this node is not ready: {node.not_ready}")
    return answers.json({"status": "ready", "node": node.settings.node_id, "term": node.term})


async def metrics(node: Node, request: Request) -> Answer:
    """Prometheus text of the agent."""
    shown, stats = node.metrics, node.index.stats()
    shown.items.set(stats["items"])
    shown.bytes.set(stats["bytes"])
    shown.blocks.set(stats["blocks"])
    shown.commits.set(node.committer.stats.commits)
    shown.term.set(node.term)
    if node.semantic:
        shown.semantic_behind.set(stats["newest_offset"] - node.semantic.applied)
        shown.semantic_vectors.set(node.semantic.texts)
    for state in (feed() for feed in node.feeds):
        shown.feed_items.labels(state["feed"]).set(state["items"])
        shown.feed_live.labels(state["feed"]).set(state["state"] == "live")
    return Answer(200, {"Content-Type": "text/plain"}, shown.expose())


def describe(node: Node) -> dict[str, Any]:
    """This node as `GET /api/nodes` shows it. A single node leads itself."""
    age = time.monotonic() - node.metrics.heartbeat_at
    settings = node.settings
    return {
        "id": settings.node_id,
        "url": f"http://{settings.host}:{settings.port}",
        "role": "leader",
        "state": "alive",
        "capabilities": node.capabilities,
        "score": score(node.capabilities),
        "heartbeat_age_s": round(age, 3),
        "applied_offset": node.snapshot().newest,
        "feeds": [feed() for feed in node.feeds],
    }


async def nodes(node: Node, request: Request) -> Answer:
    """GET /api/nodes."""
    return answers.json(
        {"leader": node.settings.node_id, "term": node.term, "nodes": [describe(node)]}
    )


async def node_self(node: Node, request: Request) -> Answer:
    """GET /api/nodes/self."""
    return answers.json({**describe(node), "term": node.term, "epoch": node.log.epoch})


async def lead(node: Node, request: Request) -> Answer:
    """POST /api/nodes/<id>/lead: a single node leads already."""
    wanted = request.params["node_id"]
    if wanted != node.settings.node_id:
        raise NotFound(f"there is no node {wanted[:80]!r} here")
    return answers.json({"leader": wanted, "term": node.term})


async def control(node: Node, request: Request) -> Answer:
    """GET /api/control."""
    stored = await asyncio.to_thread(node.state.get, "control", "emergency_stop")
    return answers.json(RUNNING if stored is None else msgspec.json.decode(stored.value))


async def emergency_stop(node: Node, request: Request) -> Answer:
    """POST /api/control/emergency-stop: durable before it is acknowledged."""
    body = body_json(request)
    reason = body.get("reason") if isinstance(body, dict) else None
    return await _set_control(node, stop=True, reason=str(reason)[:1000] if reason else None)


async def resume(node: Node, request: Request) -> Answer:
    """POST /api/control/resume."""
    return await _set_control(node, stop=False, reason=None)


async def _set_control(node: Node, *, stop: bool, reason: str | None) -> Answer:
    now = time.time()
    state = {"emergency_stop": stop, "since": now if stop else None, "reason": reason}
    stored = msgspec.json.encode(state)
    await asyncio.to_thread(node.state.put, "control", "emergency_stop", stored, now=now)
    item = make_item("emergency_stop", {**state, "term": node.term}, source=node.settings.node_id)
    await node.append_items([item])
    return answers.json(state)


CALLS = {
    "ready": ready,
    "metrics": metrics,
    "nodes": nodes,
    "node_self": node_self,
    "lead": lead,
    "control": control,
    "emergency_stop": emergency_stop,
    "resume": resume,
}
