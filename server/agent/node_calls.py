"""Calls on the node itself: readiness, metrics, membership, emergency stop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from context.adapters.disk_room import free_bytes
from context.ingest import make_item
from nodes.leadership import Member
from server.agent import answers
from server.agent.context_calls import body_json
from server.agent.node import Node, NotReady
from server.ipc import Answer, Request

RUNNING = {"emergency_stop": False, "since": None, "reason": None}


async def ready(node: Node, request: Request) -> Answer:
    """GET /readyz."""
    if node.not_ready:
        raise NotReady(f"this node is not ready: {node.not_ready}")
    told = {"status": "ready", "node": node.settings.node_id, "term": node.term}
    return answers.json({**told, "behind": node.behind})


async def metrics(node: Node, request: Request) -> Answer:
    """Prometheus text of the agent."""
    shown, stats = node.metrics, node.index.stats()
    shown.items.set(stats["items"])
    shown.bytes.set(stats["bytes"])
    shown.blocks.set(stats["blocks"])
    shown.commits.set(node.committer.stats.commits)
    shown.term.set(node.term)
    shown.behind.set(node.behind)
    shown.disk_free.set(free_bytes(node.settings.data_dir))
    shown.disk_used.set(node.disk_used)
    if node.semantic:
        shown.semantic_behind.set(stats["newest_offset"] - node.semantic.applied)
        shown.semantic_vectors.set(node.semantic.texts)
    for state in (feed() for feed in node.feeds):
        shown.feed_items.labels(state["feed"]).set(state["items"])
        shown.feed_live.labels(state["feed"]).set(state["state"] == "live")
    return Answer(200, {"Content-Type": "text/plain"}, shown.expose())


def describe(member: Member) -> dict[str, Any]:
    """A member as `GET /api/nodes` shows it."""
    beat = member.beat
    return {
        "id": beat.id,
        "url": beat.url,
        "role": member.role,
        "state": member.state,
        "capabilities": beat.capabilities,
        "score": beat.score,
        "score_parts": beat.score_parts,
        "heartbeat_age_s": round(member.heartbeat_age_s, 3),
        "applied_offset": beat.applied_offset,
        "term": beat.term,
        "protocol": beat.protocol,
        "eligible": beat.eligible,
        "feeds": beat.feeds,
    }


async def nodes(node: Node, request: Request) -> Answer:
    """GET /api/nodes."""
    leadership = node.leadership
    leader = leadership.leader
    members = [describe(member) for member in leadership.members()]
    known = {"leader": leader.id if leader else None, "term": leadership.term}
    return answers.json({**known, "nodes": members})


async def node_self(node: Node, request: Request) -> Answer:
    """GET /api/nodes/self."""
    own = next(
        member for member in node.leadership.members() if member.beat.id == node.settings.node_id
    )
    return answers.json({**describe(own), "term": node.term, "epoch": node.log.epoch})


async def lead(node: Node, request: Request) -> Answer:
    """POST /api/nodes/<id>/lead: hand the lead to a node, from whichever node this is."""
    wanted = request.params["node_id"]
    term = await node.leadership.hand_to(wanted)
    return answers.json({"leader": wanted, "term": term})


async def control(node: Node, request: Request) -> Answer:
    """GET /api/control."""
    return answers.json(await _control(node))


async def _control(node: Node) -> dict[str, Any]:
    stored = await asyncio.to_thread(node.state.get, "control", "emergency_stop")
    return RUNNING if stored is None else msgspec.json.decode(stored.value)


async def emergency_stop(node: Node, request: Request) -> Answer:
    """POST /api/control/emergency-stop: durable before it is acknowledged."""
    body = body_json(request)
    reason = body.get("reason") if isinstance(body, dict) else None
    return await _set_control(node, stop=True, reason=str(reason)[:1000] if reason else None)


async def resume(node: Node, request: Request) -> Answer:
    """POST /api/control/resume; where nothing is stopped it changes nothing."""
    if not (await _control(node))["emergency_stop"]:
        return await control(node, request)
    return await _set_control(node, stop=False, reason=None)


async def _set_control(node: Node, *, stop: bool, reason: str | None) -> Answer:
    now = time.time()
    state = {"emergency_stop": stop, "since": now if stop else None, "reason": reason}
    stored = msgspec.json.encode(state)
    await asyncio.to_thread(node.state.put, "control", "emergency_stop", stored, now=now)
    item = make_item("emergency_stop", {**state, "term": node.term}, source=node.settings.node_id)
    await node.append_items([item], urgent=True)
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
