"""Calls on webhooks, and the senders behind them."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec

from context.errors import BadCursor, InvalidRequest, NotFound
from context.items import Cursor
from context.request import HookRequest, parse_hook
from context.webhook import Hook, check_url, key_of, make_secret
from server.agent import answers
from server.agent.context_calls import body_json
from server.agent.ipc_server import Call
from server.agent.node import Node
from server.agent.webhooks import DEAD, HOOK, MAX_DEAD_LETTERS, READERS, Sender
from server.ipc import Answer, Request

MAX_WEBHOOKS = 100  # each may hold a connection and a delivery in memory
SECRET_BYTES = 32


class Webhooks:
    """All webhooks of a node, by id."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._senders: dict[str, Sender] = {}
        self._readers = asyncio.Semaphore(READERS)

    async def run(self) -> None:
        """Go on with those that are stored, until cancelled."""
        try:
            await self._start()
            await asyncio.Event().wait()
        finally:
            senders, self._senders = self._senders, {}
            await asyncio.gather(*(sender.stop() for sender in senders.values()))

    async def _start(self) -> None:
        list_, most = self._node.state.list, MAX_WEBHOOKS
        for stored in await asyncio.to_thread(list_, HOOK, limit=most, newest_first=False):
            hook = msgspec.json.decode(stored.value, type=Hook)
            if hook.id in self._senders:  # made while this one read
                continue
            dead = await asyncio.to_thread(list_, f"{DEAD}.{hook.id}", limit=MAX_DEAD_LETTERS)
            hook = msgspec.structs.replace(hook, dead_letters=len(dead))  # a crash may miscount
            self._add(hook, stored.version)

    def calls(self) -> dict[str, Call]:
        """The calls by name."""
        return {
            "webhook_create": self.create,
            "webhooks": self.list,
            "webhook": self.get,
            "webhook_delete": self.delete,
            "webhook_resume": self.resume,
            "webhook_dead_letters": self.dead_letters,
            "webhook_retry": self.retry,
        }

    async def create(self, node: Node, request: Request) -> Answer:
        """POST /api/context/webhooks."""
        asked = parse_hook(body_json(request))
        check_url(asked.url, node.settings.webhook_allow)
        asked.selection()
        if asked.secret is not None:
            key_of(asked.secret)
        hook = _hook(asked, self._begin(asked.after), time.time())
        if len(self._senders) >= MAX_WEBHOOKS:
            raise InvalidRequest(f"there are {MAX_WEBHOOKS} webhooks; delete one")
        stored = msgspec.json.encode(hook)
        version = await asyncio.to_thread(
            node.state.put, HOOK, hook.id, stored, expected=0, now=hook.created_at
        )
        sender = self._add(hook, version)
        shown = _shown(node, sender)
        if asked.secret is None:
            shown["secret"] = hook.secret  # told once
        return answers.json(shown, 201)

    async def list(self, node: Node, request: Request) -> Answer:
        """GET /api/context/webhooks."""
        return answers.json({"webhooks": [_shown(node, each) for each in self._senders.values()]})

    async def get(self, node: Node, request: Request) -> Answer:
        """GET /api/context/webhooks/<id>."""
        return answers.json(_shown(node, self._sender(request)))

    async def delete(self, node: Node, request: Request) -> Answer:
        """DELETE /api/context/webhooks/<id>: with its dead letters."""
        sender = self._sender(request)
        del self._senders[sender.hook.id]
        await sender.stop()
        await asyncio.to_thread(node.state.delete, HOOK, sender.hook.id)
        await asyncio.to_thread(node.state.prune, f"{DEAD}.{sender.hook.id}", keep_newest=0)
        return answers.json({"id": sender.hook.id, "deleted": True})

    async def resume(self, node: Node, request: Request) -> Answer:
        """POST /api/context/webhooks/<id>/resume."""
        sender = self._sender(request)
        await sender.resume()
        return answers.json(_shown(node, sender))

    async def dead_letters(self, node: Node, request: Request) -> Answer:
        """GET /api/context/webhooks/<id>/dead-letters."""
        letters = await asyncio.to_thread(self._sender(request).dead_letters)
        return answers.json({"dead_letters": letters})

    async def retry(self, node: Node, request: Request) -> Answer:
        """POST /api/context/webhooks/<id>/dead-letters/retry."""
        sender = self._sender(request)
        await sender.retry()
        return answers.json({"id": sender.hook.id, "retrying": sender.hook.dead_letters}, 202)

    def _add(self, hook: Hook, version: int) -> Sender:
        sender = Sender(self._node, hook, version, self._readers)
        self._senders[hook.id] = sender
        sender.start()
        return sender

    def _sender(self, request: Request) -> Sender:
        hook_id = request.params["hook_id"]
        if hook_id not in self._senders:
            raise NotFound(f"there is no webhook {hook_id[:80]!r}")
        return self._senders[hook_id]

    def _begin(self, after: str | None) -> str:
        newest = self._node.cursor(self._node.snapshot().newest)
        if after is None:
            return newest
        cursor = Cursor.parse(after)
        if cursor.epoch == self._node.log.epoch and cursor > Cursor.parse(newest):
            raise BadCursor(f"cursor {after} lies beyond the newest item {newest}")
        return after


def _hook(asked: HookRequest, cursor: str, now: float) -> Hook:
    told = msgspec.structs.asdict(asked)
    plumbing = ("url", "secret", "after")
    return Hook(
        id=f"wh{secrets.token_hex(8)}",
        url=asked.url,
        secret=asked.secret or make_secret(secrets.token_bytes(SECRET_BYTES)),
        wish={k: v for k, v in told.items() if v not in (None, False) and k not in plumbing},
        created_at=now,
        cursor=cursor,
    )


def _shown(node: Node, sender: Sender) -> dict[str, Any]:
    """A webhook as the API shows it: never its secret, nor the query of its address."""
    hook, epoch = sender.hook, node.log.epoch
    shown = {k: v for k, v in msgspec.structs.asdict(hook).items() if k not in ("layout", "secret")}
    parts = urlsplit(hook.url)
    shown["url"] = parts._replace(query="..." if parts.query else "").geturl()
    newest, here = node.snapshot().newest, sender.scanned
    shown["behind"] = newest - here.offset if here.epoch == epoch else newest + 1
    shown["next_attempt_at"] = sender.next_attempt_at
    return {"filters": shown.pop("wish"), **shown}
