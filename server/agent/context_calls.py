"""Calls on context: take in, look up, search, catch up, pack for models, custom types."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from context.adapters.disk_room import free_bytes
from context.damage import LostBlock
from context.errors import InvalidItem, InvalidJson, InvalidRequest, NotFound
from context.ingest import parse_usual
from context.items import encode_item
from context.packing import parse_request as parse_pack
from context.ports import Draft, Receipt
from context.request import parse_latest, parse_search, parse_stream
from context.search import latest, read_forward, search
from context.types import MAX_SCHEMA_BYTES
from server.agent import answers
from server.agent.bodies import parse
from server.agent.node import Node
from server.agent.packs import pack_newest
from server.agent.semantic_calls import search_by_meaning
from server.ipc import Answer, Request

MAX_KEY_CHARS = 128
READ_ITEMS, READ_BYTES = 1000, 1 << 20  # of history at a time


def body_json(request: Request) -> Any:
    """The decoded JSON body; raises InvalidJson."""
    try:
        return msgspec.json.decode(request.body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidJson(f"the body is not valid JSON: {exc}") from exc


async def ingest(node: Node, request: Request) -> Answer:
    """POST /api/context/ingest."""
    asked, body = request.params, request.body
    # A small compressed body may hold a large one.
    size = node.settings.max_body_bytes if asked.get("content_encoding") else len(body)
    return accepted(node, await node.append(await node.parse(size, draft, node, asked, body)))


def draft(node: Node, asked: Mapping[str, Any], body: bytes) -> Draft:
    """What a body asks to store, checked. Raises what is wrong with it."""
    key = asked.get("idempotency_key")
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {MAX_KEY_CHARS} characters, got {len(key)}"
        )
    plain, lines = parse(
        body,
        content_type=asked.get("content_type", ""),
        encoding=asked.get("content_encoding", ""),
        limit=node.settings.max_body_bytes,
        types=node.types,
        now=time.time(),
    )
    if lines.may_chain and node.chain.mark in lines.text:
        message = "data.chain of this log's own epoch is written by the node alone"
        raise InvalidItem(message, [{"index": 0, "field": "data.chain", "message": message}])
    digest = hashlib.blake2b(plain, digest_size=16).digest() if key is not None else b""
    return Draft(lines.count, lines.text, key, digest, lines.heads, ends=lines.ends)


def joint_draft(node: Node, bodies: Sequence[bytes]) -> tuple[Draft, list[int]] | None:
    """What NDJSON bodies ask to store, checked at once, and how many items are in each.

    None where each is to be judged by itself.
    """
    found = parse_usual(bodies, node.types, now=time.time())
    if found is None:
        return None
    lines, counts = found
    if lines.may_chain and node.chain.mark in lines.text:
        return None
    return Draft(lines.count, lines.text, heads=lines.heads, ends=lines.ends), counts


def accepted(node: Node, receipt: Receipt) -> Answer:
    """The acknowledgement."""
    document = {
        "accepted": receipt.count,
        "first_offset": receipt.first_offset,
        "last_offset": receipt.last_offset,
        "cursor": node.cursor(receipt.last_offset),
        "term": receipt.term,
    }
    if receipt.replayed:
        return answers.json(document, 200, Idempotent_Replayed="true")
    return answers.json(document, 201)


async def get_latest(node: Node, request: Request) -> Answer:
    """GET /api/context/latest."""
    asked = parse_latest(request.params["args"])
    found = await node.scan(
        latest,
        node.snapshot(),
        asked.filter(),
        limit=asked.limit,
        before=asked.before,
        epoch=node.log.epoch,
        clock=time.monotonic,
    )
    return answers.json(found)


async def get_item(node: Node, request: Request) -> Answer:
    """GET /api/context/items/<offset>."""
    offset = int(request.params["offset"])
    found = await node.scan(node.index.item, offset)
    if found is None:
        newest = node.snapshot().newest
        if offset <= newest:
            raise NotFound(f"item {offset} is no longer kept (retention)")
        raise NotFound(f"there is no item {offset}; the newest is {newest}")
    ingested_at, line = found
    return answers.encoded(encode_item(node.log.epoch, offset, ingested_at, line))


async def post_search(node: Node, request: Request) -> Answer:
    """POST /api/context/search."""
    asked = parse_search(body_json(request))
    if asked.mode != "text":
        return await search_by_meaning(node, asked)
    found = await node.scan(
        search,
        node.snapshot(),
        asked,
        epoch=node.log.epoch,
        clock=time.monotonic,
        submit=node.load,
    )
    return answers.json(found)


async def as_of(node: Node, request: Request) -> Answer:
    """Epoch, oldest and newest offset: where a feed or a subscription begins."""
    _, newest = await asyncio.to_thread(node.log.bounds)
    oldest = node.snapshot().oldest
    if not node.not_ready:
        newest = node.snapshot().newest
    return answers.json({"epoch": node.log.epoch, "oldest": oldest, "newest": newest})


class Piece(msgspec.Struct, array_like=True):
    """Part of history for one subscriber: `items` is (offset, ingested_at, line)."""

    items: list[tuple[int, float, bytes]]
    scanned_to: int
    following: int  # the first offset after `after` that is still here


async def read(node: Node, request: Request) -> Answer:
    """History after an offset for one subscriber, filtered; it goes on after `scanned_to`."""
    asked, after = parse_stream(request.params["args"]), int(request.params["after"])
    snapshot = node.snapshot()
    try:
        items, scanned_to = await node.scan(
            read_forward,
            snapshot,
            after,
            asked.selection(),
            max_items=READ_ITEMS,
            max_bytes=READ_BYTES,
        )
        piece = Piece(items, scanned_to, snapshot.following(after))
    except LostBlock as lost:
        piece = Piece([], after, lost.last + 1)
    return Answer(200, {}, msgspec.msgpack.encode(piece))


async def get_stats(node: Node, request: Request) -> Answer:
    """GET /api/context/stats."""
    stats, now = node.index.stats(), time.time()
    oldest, newest = stats["oldest_offset"], stats["newest_offset"]
    commits = node.committer.stats
    return answers.json(
        {
            **stats,
            "epoch": node.log.epoch,
            "term": node.term,
            "oldest": node.cursor(oldest),
            "newest": node.cursor(newest),
            "rates": {
                "items_per_s_10s": node.metrics.rates.per_second(now, 10),
                "items_per_s_60s": node.metrics.rates.per_second(now, 60),
            },
            "damaged": [
                {"first": first, "last": last} for first, last in node.archive.lost_ranges()
            ],
            "dropped_items": node.dropped_items,
            "disk": {
                "used_bytes": node.disk_used,
                "free_bytes": free_bytes(node.settings.data_dir),
                "budget_bytes": node.settings.disk_budget_mb << 20,
                "reserve_bytes": node.settings.disk_reserve_mb << 20,
            },
            "commits": {"fsyncs": commits.commits, "batches": commits.batches},
            "feeds": [state() for state in node.feeds],
            "uptime_s": round(now - node.started_at, 3),
        }
    )


async def post_types(node: Node, request: Request) -> Answer:
    """POST /api/context/types: {"name", "schema"}."""
    body = body_json(request)
    if not isinstance(body, dict) or set(body) != {"name", "schema"}:
        raise InvalidRequest('the body must be {"name": ..., "schema": {...}}')
    name, schema = body["name"], body["schema"]
    if not isinstance(name, str) or not isinstance(schema, dict):
        raise InvalidRequest("name must be text and schema an object")
    stored = msgspec.json.encode(schema)
    if len(stored) > MAX_SCHEMA_BYTES:
        raise InvalidRequest(
            f"schema is {len(stored)} bytes; at most {MAX_SCHEMA_BYTES} are allowed"
        )
    node.types.register(name, schema)
    await asyncio.to_thread(node.state.put, "type", name, stored, now=time.time())
    return answers.json({"name": name, "schema": schema}, 201)


async def get_types(node: Node, request: Request) -> Answer:
    """GET /api/context/types."""
    return answers.json({"types": node.types.describe()})


async def post_pack(node: Node, request: Request) -> Answer:
    """POST /api/context/ai/request."""
    asked = parse_pack(body_json(request))
    return answers.encoded((await node.scan(pack_newest, node, asked)).body)


async def get_pack(node: Node, request: Request) -> Answer:
    """GET /api/context/ai/request/<context_id>: the same bytes again."""
    context_id = request.params["context_id"]
    stored = await asyncio.to_thread(node.state.get, "pack", context_id)
    if stored is None:
        raise NotFound(f"there is no packed context {context_id[:80]!r}")
    return answers.encoded(stored.value)


CALLS = {
    "ingest": ingest,
    "latest": get_latest,
    "item": get_item,
    "search": post_search,
    "as_of": as_of,
    "read": read,
    "stats": get_stats,
    "types_register": post_types,
    "types": get_types,
    "pack": post_pack,
    "packed": get_pack,
}
