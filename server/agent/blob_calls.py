"""Calls on blobs."""

from __future__ import annotations

import asyncio

import msgspec

from server.agent import answers
from server.agent.node import Node
from server.ipc import Answer, Request
from shared_storage.errors import NoBlob

# The digest names the content, which never changes.
HEADERS = {
    "Content-Type": "application/octet-stream",
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "sandbox",
}


async def put(node: Node, request: Request) -> Answer:
    """POST /api/blobs."""
    node.room.check()
    blob = await asyncio.to_thread(node.blobs.put, [request.body])
    return answers.json({"sha256": blob.digest, "size": blob.size}, 201)


async def listed(node: Node, request: Request) -> Answer:
    """GET /api/blobs."""
    found = await asyncio.to_thread(node.blobs.list)
    return answers.json({"blobs": [{"sha256": b.digest, "size": b.size} for b in found]})


async def get(node: Node, request: Request) -> Answer:
    """GET /api/blobs/<sha256>."""
    digest = request.params["sha256"]
    data = await asyncio.to_thread(lambda: b"".join(node.blobs.get(digest)))
    return Answer(200, {**HEADERS, "ETag": msgspec.json.encode(digest).decode()}, data)


async def delete(node: Node, request: Request) -> Answer:
    """DELETE /api/blobs/<sha256>."""
    digest = request.params["sha256"]
    if not await asyncio.to_thread(node.blobs.delete, digest):
        raise NoBlob(f"there is no blob {digest}")
    return answers.json({"sha256": digest, "deleted": True})


CALLS = {"blob_put": put, "blobs": listed, "blob": get, "blob_delete": delete}
