"""Kraken spot: the `trade` channel of protocol 2; protocol 1 is read too.

Protocol 2: https://docs.kraken.com/api/docs/websocket-v2/trade - objects, with trade ids. Its
subscription starts with the newest 50 trades, so a reconnection recovers that many.
Protocol 1: https://docs.kraken.com/api/docs/websocket-v1/trade - arrays `[channel, [[price, volume,
time, side, order type, misc]], "trade", pair]`, without ids, so repeats cannot be told from trades.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from context.feeds.errors import FeedError
from context.feeds.trade import Connector, Digits, Number, Side, Trade

URL = "wss://ws.kraken.com/v2"
_OLD_NAMES = {"XBT": "BTC", "XDG": "DOGE"}
_SIDES: dict[str, Side] = {"b": "buy", "s": "sell"}

_Pair = Annotated[str, msgspec.Meta(pattern=r"^[A-Z0-9.]+/[A-Z0-9.]+$", max_length=40)]


class _Trade(msgspec.Struct):
    symbol: _Pair
    side: Side
    price: Number
    qty: Number
    trade_id: int
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]


# price, volume, time, side, order type, misc
_OldTrade = tuple[Digits, Digits, Digits, Literal["b", "s"], str, str]


class Kraken(Connector):
    """Trades of the requested symbols."""

    name = "kraken"

    def url(self) -> str:
        """One address for all symbols."""
        return URL

    def subscriptions(self) -> list[str]:
        """One message; Kraken acknowledges or refuses each symbol by itself."""
        params = {"channel": "trade", "symbol": list(self.symbols), "snapshot": True}
        return [msgspec.json.encode({"method": "subscribe", "params": params}).decode()]

    def probe(self) -> str | None:
        """Answered by a pong; there is also a heartbeat every second."""
        return '{"method":"ping"}'

    def _trades(self, message: Any) -> list[Trade]:
        if isinstance(message, list):
            return _protocol_1(message)
        if not isinstance(message, dict):
            raise FeedError(f"kraken: expected an object or array, got {str(message)[:80]!r}")
        if message.get("success") is False or message.get("status") == "error":
            why = message.get("error") or message.get("errorMessage")
            raise FeedError(f"kraken refused: {str(why)[:200]}")
        if message.get("channel") != "trade":
            return []
        return _protocol_2(msgspec.convert(message.get("data"), list[_Trade]))


def _protocol_2(trades: list[_Trade]) -> list[Trade]:
    return [
        Trade(
            symbol=_symbol(trade.symbol),
            price=trade.price,
            volume=trade.qty,
            side=trade.side,
            exchange_ts=trade.timestamp.timestamp(),
            trade_id=trade.trade_id,
        )
        for trade in sorted(trades, key=lambda trade: trade.trade_id)  # a snapshot has no order
    ]


def _protocol_1(message: list[Any]) -> list[Trade]:
    if len(message) != 4 or message[2] != "trade":
        return []
    symbol = _symbol(msgspec.convert(message[3], _Pair))
    return [
        Trade(symbol, float(price), float(volume), _SIDES[side], float(time))
        for price, volume, time, side, _, _ in msgspec.convert(message[1], list[_OldTrade])
    ]


def _symbol(pair: str) -> str:
    return "/".join(_OLD_NAMES.get(part, part) for part in pair.split("/"))
