"""Questions that trading asks by itself, and the answers that it may not have seen yet."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import msgspec

from ai_bridge.errors import BridgeError
from ai_bridge.trading.entries import Start
from context.errors import ContextError
from context.filter import Filter
from context.search import latest
from server.agent import ai_calls
from server.ipc import Request

if TYPE_CHECKING:
    from server.agent.node import Node

RECENT = 100  # decisions before a start or a change of the leader that may still be fresh
MAX_DEADLINE_MS = 5000


class Asking:
    """Asks the models about each symbol of a session, as often as its mode says."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._asked = dict[str, float]()
        self._asking = set[str]()

    def ask(self, session: Start) -> None:
        """Ask about every symbol that is due; the answers come by the log."""
        now, every = time.monotonic(), session.rules.ask_every_s
        for symbol in session.symbols if every else ():
            due = now - self._asked.get(symbol, -every) >= every
            if due and symbol not in self._asking:
                self._asked[symbol] = now
                self._asking.add(symbol)
                self._node.spawn(self._decide(symbol, session))

    async def recent(self) -> list[dict[str, Any]]:
        """The newest decisions of the chain, oldest first."""
        return await self._node.scan(self._recent)

    async def _decide(self, symbol: str, session: Start) -> None:
        deadline_ms = min(MAX_DEADLINE_MS, int(session.rules.decision_age_s * 500))
        body = msgspec.json.encode({"symbols": [symbol], "deadline_ms": max(1, deadline_ms)})
        try:
            with contextlib.suppress(BridgeError, ContextError):  # nobody votes, a full disk
                await ai_calls.decide(self._node, Request("decide", {"caller": "trading"}, body))
        finally:
            self._asking.discard(symbol)

    def _recent(self) -> list[dict[str, Any]]:
        node = self._node
        wish = Filter(types=frozenset({"ai_decision"}))
        found = latest(
            node.snapshot(), wish, limit=RECENT, epoch=node.log.epoch, clock=time.monotonic
        )
        records = [msgspec.json.decode(raw)["data"] for raw in reversed(found["items"])]
        return [record for record in records if _epoch(record) == node.log.epoch]


def _epoch(record: dict[str, Any]) -> object:
    link = record.get("chain")
    return link.get("epoch") if isinstance(link, dict) else None
