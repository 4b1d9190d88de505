"""Prices from the log, for planning, for marks and for the paper broker."""

from __future__ import annotations

import time
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from ai_bridge.trading.money import price_of
from ai_bridge.trading.planning import Quote
from ai_bridge.trading.requests import currency
from context.filter import Filter
from context.query import Selection
from context.search import latest, read_on

if TYPE_CHECKING:
    from server.agent.node import Node

FRESH_S = 0.05
TICKS = 200  # at a time
NEWEST = 1000  # items whose symbols a session trades if none were named


def _wish(symbol: str | None) -> Filter:
    return Filter(types=frozenset({"trading_data"}), symbol=symbol)


class Market:
    """The newest prices by symbol. Times are those at which an item came into the log."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._quotes: dict[str, tuple[float, Quote | None]] = {}

    async def quote(self, symbol: str) -> Quote | None:
        """The newest price, at most 50 ms old."""
        now = time.monotonic()
        asked, quote = self._quotes.get(symbol, (-1.0, None))
        if now - asked > FRESH_S:
            quote = await self._node.scan(self._newest, symbol)
            self._quotes[symbol] = now, quote
        return quote

    async def prices(self, symbols: Iterable[str]) -> dict[str, Decimal]:
        """The newest price of each symbol that has one."""
        quotes = {symbol: await self.quote(symbol) for symbol in symbols}
        return {symbol: quote.price for symbol, quote in quotes.items() if quote}

    async def after(self, symbol: str, offset: int) -> tuple[list[Quote], int]:
        """Prices behind an offset, in order, and the offset up to which they were read.

        All that there are, or the first few hundred.
        """
        snapshot, wish, found = self._node.snapshot(), Selection(_wish(symbol)), list[Quote]()
        while offset < snapshot.newest and not found:
            lines, offset = await self._node.scan(
                read_on, snapshot, offset, wish, max_items=TICKS, max_bytes=1 << 20
            )
            quotes = (_quote(line, at, where) for where, at, line in lines)
            found += [quote for quote in quotes if quote]
        return found, offset

    async def symbols(self, quote: str | None) -> list[str]:
        """Symbols among the newest prices, the most traded first: of one currency, where given."""
        return await self._node.scan(self._symbols, quote)

    def _newest(self, symbol: str) -> Quote | None:
        node = self._node
        found = latest(
            node.snapshot(), _wish(symbol), limit=1, epoch=node.log.epoch, clock=time.monotonic
        )
        for raw in found["items"]:
            item = msgspec.json.decode(raw)
            price = price_of(item["data"]["price"])
            return Quote(price, item["offset"], item["ingested_at"]) if price else None
        return None

    def _symbols(self, quote: str | None) -> list[str]:
        node, counts = self._node, dict[str, int]()
        found = latest(
            node.snapshot(), _wish(None), limit=NEWEST, epoch=node.log.epoch, clock=time.monotonic
        )
        for raw in found["items"]:
            symbol = msgspec.json.decode(raw)["data"]["symbol"]
            if quote is None or currency(symbol) == quote:
                counts[symbol] = counts.get(symbol, 0) + 1
        return sorted(counts, key=lambda symbol: -counts[symbol])


def _quote(line: bytes, at: float, offset: int) -> Quote | None:
    price = price_of(msgspec.json.decode(line)["data"]["price"])
    return Quote(price, offset, at) if price else None
