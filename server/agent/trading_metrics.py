"""What Prometheus sees of trading: read from the book when it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ai_bridge.trading.book import Book

if TYPE_CHECKING:
    from server.agent.trader import Trader

_MONEY = ("equity", "cash", "profit", "realised", "fees")


class TradingMetrics(Collector):
    """The trader's numbers. Positions count at the last price that was marked or traded at."""

    def __init__(self, trader: Trader) -> None:
        self._trader = trader

    def collect(self) -> Iterator[Metric]:
        """All families."""
        trader, book = self._trader, self._trader.book
        running = GaugeMetricFamily("context_trading", "1 while a session trades", labels=["mode"])
        if book.session:
            running.add_metric([book.session.mode], 1)
        yield running
        yield GaugeMetricFamily(
            "context_trading_open_orders", "Orders not settled yet", value=len(book.open)
        )
        counts = {"orders": book.orders, "fills": book.fills}
        for name, count in counts.items():
            yield CounterMetricFamily(
                f"context_trading_{name}", f"All {name} in the log", value=count
            )
        yield CounterMetricFamily(
            "context_trading_refused",
            "Orders the gate refused since the start",
            value=trader.dealer.refused,
        )
        yield from _accounts(book)


def _accounts(book: Book) -> Iterator[Metric]:
    money = GaugeMetricFamily(
        "context_trading_money", "Of an account, in its currency", labels=["account", "of"]
    )
    held = GaugeMetricFamily(
        "context_trading_position", "Quantity that is held", labels=["account", "symbol"]
    )
    for name, account in book.accounts.items():
        equity = account.equity({})
        values = (equity, account.cash, equity - account.capital, account.realised, account.fees)
        for of, value in zip(_MONEY, values, strict=True):
            money.add_metric([name, of], float(value))
        for symbol, position in account.positions.items():
            held.add_metric([name, symbol], float(position.qty))
    yield money
    yield held
