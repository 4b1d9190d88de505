"""Coinbase Exchange: the `matches` channel, and `heartbeat` so that silence means trouble.

Protocol: https://docs.cdp.coinbase.com/exchange/websocket-feed/channels. `side` is the *maker's*,
so the taker's is the other one. Every subscription starts with `last_match`, the newest trade
there already was: taken when it is new to us, so a reconnection recovers it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec

from context.feeds.errors import FeedError
from context.feeds.trade import Connector, Digits, Side, Trade

URL = "wss://ws-feed.exchange.coinbase.com"
_TAKER: dict[Side, Side] = {"buy": "sell", "sell": "buy"}


class _Match(msgspec.Struct):
    trade_id: int
    side: Side
    size: Digits
    price: Digits
    product_id: Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9]+-[A-Z0-9]+$", max_length=40)]
    time: Annotated[datetime, msgspec.Meta(tz=True)]


class Coinbase(Connector):
    """Matches of the requested symbols."""

    name = "coinbase"

    def url(self) -> str:
        """One address for all symbols."""
        return URL

    def subscriptions(self) -> list[str]:
        """One message for both channels."""
        products = [symbol.replace("/", "-") for symbol in self.symbols]
        ask = {"type": "subscribe", "product_ids": products, "channels": ["matches", "heartbeat"]}
        return [msgspec.json.encode(ask).decode()]

    def probe(self) -> str | None:
        """None: heartbeats come every second."""
        return None

    def _trades(self, message: Any) -> list[Trade]:
        kind = message.get("type") if isinstance(message, dict) else None
        if not isinstance(kind, str):
            raise FeedError(f"coinbase: expected an object with a type, got {str(message)[:80]!r}")
        if kind == "error":
            why = f"{message.get('message')}: {message.get('reason')}"
            raise FeedError(f"coinbase refused: {why[:200]}")
        if kind not in ("match", "last_match"):
            return []
        match = msgspec.convert(message, _Match)
        return [
            Trade(
                symbol=match.product_id.replace("-", "/"),
                price=float(match.price),
                volume=float(match.size),
                side=_TAKER[match.side],
                exchange_ts=match.time.timestamp(),
                trade_id=match.trade_id,
            )
        ]
