"""Market data from outside: what a feed specification means, and a pure connector per exchange.

Add an exchange: write its connector and put it into `CONNECTORS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from context.errors import InvalidRequest
from context.feeds.binance import Binance
from context.feeds.coinbase import Coinbase
from context.feeds.errors import FeedError
from context.feeds.kraken import Kraken
from context.feeds.trade import Connector

__all__ = ["CONNECTORS", "SIMULATED", "Connector", "FeedError", "FeedSpec", "parse_spec"]

CONNECTORS: dict[str, type[Connector]] = {
    connector.name: connector for connector in (Binance, Coinbase, Kraken)
}
SIMULATED = "simulated"
SIMULATED_SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD")
MAX_SYMBOLS = 200  # below what one connection of each exchange allows

_SYMBOL = re.compile(r"[A-Z0-9]{1,20}/[A-Z0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class FeedSpec:
    """One feed to run; `exchange` is a key of CONNECTORS, or "simulated"."""

    exchange: str
    symbols: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.exchange}:{','.join(self.symbols)}"


def parse_spec(text: str) -> FeedSpec:
    """Read `"binance:BTC/USDT,ETH/USDT"` or `"simulated"`; symbols may be in lower case.

    Raises InvalidRequest naming the value and what is allowed.
    """
    exchange, _, listed = text.strip().partition(":")
    exchange = exchange.strip().lower()
    if exchange not in CONNECTORS and exchange != SIMULATED:
        allowed = ", ".join([*CONNECTORS, SIMULATED])
        raise InvalidRequest(f"feed {text[:80]!r}: {exchange[:40]!r} is not one of {allowed}")
    symbols = tuple(dict.fromkeys(part.strip().upper() for part in listed.split(",")))
    if symbols == ("",):
        if exchange == SIMULATED:
            return FeedSpec(exchange, SIMULATED_SYMBOLS)
        raise InvalidRequest(
            f"feed {text[:80]!r} names no symbol: write {exchange}:BASE/QUOTE[,BASE/QUOTE...]"
        )
    for symbol in symbols:
        if not _SYMBOL.fullmatch(symbol):
            raise InvalidRequest(
                f"feed {text[:80]!r}: symbol {symbol[:40]!r} is not BASE/QUOTE, such as BTC/USDT"
            )
    if len(symbols) > MAX_SYMBOLS:
        raise InvalidRequest(f"feed {exchange!r}: {len(symbols)} symbols; at most {MAX_SYMBOLS}")
    return FeedSpec(exchange, symbols)
