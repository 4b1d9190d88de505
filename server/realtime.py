"""Socket.IO: subscriptions, ingest, search and decisions over one connection (contract, part 4)."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from flask import request
from flask_socketio import SocketIO

from context.errors import InvalidRequest
from context.items import Batch
from context.request import parse_stream
from server import problems
from server.agent_client import AgentClient, AgentUnavailable, CallFailed
from server.live import Gap, LiveFeed, Subscription

log = logging.getLogger(__name__)
MAX_SUBSCRIPTIONS = 100  # of one connection
CREDIT = 8  # packets that may wait for one client; its subscriptions pause above
PAUSE_S = 0.02


class FastJson:
    """python-socketio's JSON hook. `msgspec.Raw` inside passes through without being decoded."""

    @staticmethod
    def dumps(value: Any, **_: Any) -> str:
        """Compact JSON text."""
        return msgspec.json.encode(value).decode()

    @staticmethod
    def loads(text: str | bytes, **_: Any) -> Any:
        """Decoded JSON; a ValueError for anything else, as the caller expects."""
        return msgspec.json.decode(text)


class Realtime:
    """Handlers of the default namespace."""

    def __init__(self, socketio: SocketIO, agent: AgentClient, feed: LiveFeed) -> None:
        self._io, self._agent, self._feed = socketio, agent, feed
        self._subscriptions: dict[str, dict[str, Subscription]] = {}
        self._term = 0  # of the leader last told
        for name in ("subscribe", "unsubscribe", "ingest", "search", "decide"):
            socketio.on_event(name, _acknowledged(getattr(self, f"_{name}")))
        socketio.on_event("connect", self._connect)
        socketio.on_event("disconnect", self._disconnect)
        feed.on_batch(self._announce)

    def _connect(self, auth: Any = None) -> None:
        self._subscriptions[_sid()] = {}
        self._tell_leader(to=_sid())

    def _disconnect(self, *_: Any) -> None:
        self._subscriptions.pop(_sid(), None)

    def _subscribe(self, asked: Any = None) -> dict[str, Any]:
        sid, wish = _sid(), _object(asked or {})
        mine = self._subscriptions[sid]
        if len(mine) >= MAX_SUBSCRIPTIONS:
            raise InvalidRequest(f"a connection may hold {MAX_SUBSCRIPTIONS} subscriptions")
        subscription = Subscription(self._feed, parse_stream(wish))
        name = f"s{secrets.token_hex(6)}"
        mine[name] = subscription
        threading.Thread(target=self._pump, args=(sid, name, subscription), daemon=True).start()
        return {"subscription": name, "as_of": str(subscription.as_of)}

    def _unsubscribe(self, asked: Any = None) -> dict[str, Any]:
        name = _object(asked).get("subscription")
        if self._subscriptions[_sid()].pop(str(name), None) is None:
            raise InvalidRequest(f"there is no subscription {str(name)[:40]!r} here")
        return {"subscription": name}

    def _ingest(self, asked: Any = None) -> dict[str, Any]:
        json = {"content_type": "application/json"}
        answer: dict[str, Any] = self._agent.json("ingest", json, msgspec.json.encode(asked))
        return answer

    def _search(self, asked: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._agent.json("search", {}, msgspec.json.encode(asked or {}))
        return answer

    def _decide(self, asked: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = self._agent.json(
            "decide", {"caller": request.remote_addr or ""}, msgspec.json.encode(asked or {})
        )
        return answer

    # --- pushing ---

    def _tell_leader(self, **to: str) -> None:
        """Tell one connection, or all. An agent on its way back is told of by its first batch."""
        with contextlib.suppress(AgentUnavailable, CallFailed):
            nodes = self._agent.json("nodes")
            node = next(node for node in nodes["nodes"] if node["id"] == nodes["leader"])
            leader = {"id": node["id"], "url": node["url"], "term": nodes["term"]}
            self._io.emit("leader", leader, **to)
            self._term = nodes["term"]

    def _pump(self, sid: str, name: str, subscription: Subscription) -> None:
        """Send what the subscription gives, as fast as this client takes it."""
        self._feed.subscribers += 1
        try:
            while self._wanted(sid, name):
                if self._waiting(sid) >= CREDIT:
                    self._io.sleep(PAUSE_S)
                    continue
                try:
                    self._push(sid, name, subscription)
                except AgentUnavailable:
                    self._io.sleep(0.2)  # it is restarted; nothing is lost, the cursor stands
        finally:
            self._feed.subscribers -= 1

    def _push(self, sid: str, name: str, subscription: Subscription) -> None:
        found = subscription.next(timeout_s=15)
        if found is None or not self._wanted(sid, name):
            return
        if isinstance(found, Gap):
            gap = {"missed_from": found.missed_from, "missed_to": found.missed_to}
            self._io.emit("gap", {"subscription": name, **gap}, to=sid)
            return
        items = [msgspec.Raw(item) for _, item in found.items]
        cursor = f"{self._feed.epoch}:{found.items[-1][0]}"
        event = {"subscription": name, "cursor": cursor, "items": items}
        self._io.emit("context", event, to=sid)

    def _wanted(self, sid: str, name: str) -> bool:
        return name in self._subscriptions.get(sid, ())

    def _waiting(self, sid: str) -> int:
        """Packets in this client's queue; python-engineio does not bound it."""
        server = self._io.server
        try:
            client = server.eio.sockets[server.manager.eio_sid_from_sid(sid, "/")]
        except KeyError:
            return 0
        waiting: int = client.queue.qsize()
        return waiting

    def _announce(self, batch: Batch) -> None:
        """Tell everybody of the consensus' decisions, an emergency stop and a new term, unasked."""
        if batch.term > self._term:
            self._tell_leader()
        for line in _lines_with(b'"model":"consensus"', batch.text):
            if line.startswith(b'{"type":"ai_decision"'):
                self._io.emit("decision", msgspec.json.decode(line)["data"])
        if b'{"type":"emergency_stop"' in batch.text:
            # Such an item only says when to look: anybody may store one.
            with contextlib.suppress(AgentUnavailable, CallFailed):
                self._io.emit("emergency_stop", self._agent.json("control"))


def _lines_with(mark: bytes, text: bytes) -> Iterator[bytes]:
    at = text.find(mark)
    while at >= 0:
        end = text.index(b"\n", at)
        yield text[text.rfind(b"\n", 0, at) + 1 : end]
        at = text.find(mark, end)


def _sid() -> str:
    sid: str = request.sid  # type: ignore[attr-defined]
    return sid


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"the argument must be an object, got {type(value).__name__}")
    return dict(value)


def _acknowledged(handler: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Turn a result or an error into the acknowledgement of the contract."""

    def handle(*args: Any) -> dict[str, Any]:
        try:
            return {"ok": True, **handler(*args[:1])}
        except CallFailed as exc:
            return {"ok": False, "problem": exc.document}
        except Exception as exc:  # every failure is an answer; the connection stays
            return {"ok": False, "problem": problems.describe(exc)}

    return handle
