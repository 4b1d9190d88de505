"""What every exchange's messages become, and what the connectors share.

A connector is a pure parser: it says where to connect and what to send, and turns each message
into items. Its only state is the ids of recent trades, by which it drops what an exchange repeats
after a reconnection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from context.feeds.errors import FeedError

# An exchange repeats at most its newest 50 trades a symbol (Kraken's snapshot).
RECENT_IDS = 4096
LATEST = 1e11  # unix seconds; what an item's timestamp may be at most

Side = Literal["buy", "sell"]
Number = Annotated[float, msgspec.Meta(ge=0)]
Digits = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)?([eE]-?[0-9]{1,2})?$", max_length=40)
]


@dataclass(frozen=True, slots=True)
class Trade:
    """One trade, in this project's words: the symbol is BASE/QUOTE, the side is the taker's."""

    symbol: str
    price: float
    volume: float  # of the base currency
    side: Side
    exchange_ts: float  # unix seconds, the exchange's clock
    trade_id: int | None = None
    aggregate: bool = False  # several fills of one taker order at one price, under one id

    def item(self, source: str, recv_ts: float) -> dict[str, Any]:
        """The `trading_data` item; `recv_ts` is unix seconds on the receiver's clock."""
        data: dict[str, Any] = {
            "symbol": self.symbol,
            "price": self.price,
            "volume": self.volume,
            "kind": "trade",
        }
        if self.trade_id is not None:
            data["trade_id"] = self.trade_id
        data |= {"side": self.side, "exchange_ts": self.exchange_ts, "recv_ts": recv_ts}
        if self.aggregate:
            data["aggregate"] = True
        return {
            "type": "trading_data",
            "source": source,
            "timestamp": self.exchange_ts,
            "data": data,
        }


class Connector:
    """Base of the connectors: decoding, errors that name the message, and repeats."""

    name: ClassVar[str]

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._recent: dict[tuple[str, bool], RecentIds] = {}

    def url(self) -> str:
        """Where to connect for these symbols."""
        raise NotImplementedError

    def subscriptions(self) -> list[str]:
        """Messages to send once connected."""
        raise NotImplementedError

    def probe(self) -> str | None:
        """A message that the exchange answers even when nobody trades, if there is one."""
        raise NotImplementedError

    def parse(self, message: str | bytes, received_at: float) -> list[dict[str, Any]]:
        """Items of the trades in a message that were not seen before; [] for anything else.

        Raises
        ------
        FeedError
            The message is malformed, or says that the exchange refused something. Nothing of
            it was taken.
        """
        try:
            trades = self._trades(msgspec.json.decode(message))
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise FeedError(f"{self.name}: {exc}, in {message[:200]!r}") from exc
        for trade in trades:
            if trade.exchange_ts > LATEST:
                raise FeedError(f"{self.name}: trade at {trade.exchange_ts} s is no time of today")
        return [trade.item(self.name, received_at) for trade in trades if self._is_new(trade)]

    def _trades(self, message: Any) -> list[Trade]:
        raise NotImplementedError

    def _is_new(self, trade: Trade) -> bool:
        if trade.trade_id is None:
            return True
        key = (trade.symbol, trade.aggregate)
        return self._recent.setdefault(key, RecentIds()).add(trade.trade_id)


class RecentIds:
    """The newest ids of one series. Not a high-water mark: a late trade is still a trade."""

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._members: set[int] = set()

    def add(self, number: int) -> bool:
        """Remember an id; False if it is a repeat."""
        if number in self._members:
            return False
        self._members.add(number)
        self._order.append(number)
        if len(self._order) > RECENT_IDS:
            self._members.discard(self._order.popleft())
        return True
