"""Binance spot: the combined stream of raw trades.

Protocol: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams. The address
is the documented one for public market data, which is open where the trading endpoint is not.
`m` says that the buyer was the maker, so the taker sold. The futures market sends the same fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from context.feeds.errors import FeedError
from context.feeds.trade import Connector, Digits, Trade

URL = "wss://data-stream.binance.vision/stream?streams="
# For symbols that nobody asked for by name; longest first where one ends another.
QUOTES = (
    *("FDUSD", "USDT", "USDC", "TUSD", "BUSD", "USDP", "USD1", "USDE", "IDRT", "EURI"),
    *("BTC", "ETH", "BNB", "XRP", "TRX", "SOL", "DAI", "DOGE", "DOT", "USD"),
    *("EUR", "GBP", "AUD", "JPY", "TRY", "BRL", "RUB", "UAH", "ZAR", "PLN", "RON", "ARS"),
    *("MXN", "COP", "CZK", "NGN"),
)

_Millis = Annotated[int, msgspec.Meta(ge=0, le=10**14)]


class _Event(msgspec.Struct):
    symbol: str = msgspec.field(name="s")
    price: Digits = msgspec.field(name="p")
    volume: Digits = msgspec.field(name="q")
    traded_at: _Millis = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


class _Trade(_Event):
    trade_id: int = msgspec.field(name="t")


class _AggregateTrade(_Event):
    trade_id: int = msgspec.field(name="a")


class Binance(Connector):
    """Trades (`trade`) and aggregate trades (`aggTrade`) of the requested symbols."""

    name = "binance"

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._names = {symbol.replace("/", ""): symbol for symbol in symbols}

    def url(self) -> str:
        """The combined stream; the subscription is in the address."""
        return URL + "/".join(f"{name.lower()}@trade" for name in self._names)

    def subscriptions(self) -> list[str]:
        """Nothing to send."""
        return []

    def probe(self) -> str | None:
        """Asks for the list of subscriptions."""
        return '{"method":"LIST_SUBSCRIPTIONS","id":1}'

    def _trades(self, message: Any) -> list[Trade]:
        if not isinstance(message, dict):
            raise FeedError(f"binance: expected an object, got {str(message)[:80]!r}")
        if "error" in message:
            raise FeedError(f"binance refused: {str(message['error'])[:200]}")
        event = message.get("data", message)
        kind = event.get("e") if isinstance(event, dict) else None
        if kind == "trade":
            return [self._trade(msgspec.convert(event, _Trade), aggregate=False)]
        if kind == "aggTrade":
            return [self._trade(msgspec.convert(event, _AggregateTrade), aggregate=True)]
        return []

    def _trade(self, event: _Trade | _AggregateTrade, *, aggregate: bool) -> Trade:
        return Trade(
            symbol=self._names.get(event.symbol) or self._split(event.symbol),
            price=float(event.price),
            volume=float(event.volume),
            side="sell" if event.buyer_is_maker else "buy",
            exchange_ts=event.traded_at / 1000,
            trade_id=event.trade_id,
            aggregate=aggregate,
        )

    def _split(self, name: str) -> str:
        for quote in QUOTES:
            if name.endswith(quote) and name != quote:
                symbol = self._names[name] = f"{name.removesuffix(quote)}/{quote}"
                return symbol
        raise FeedError(f"binance: symbol {name[:40]!r} ends in no known quote currency")
