"""The paper broker: executes orders at the prices that come into the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ai_bridge.trading.book import Working
from ai_bridge.trading.entries import Order, Start
from ai_bridge.trading.paper import fill
from ai_bridge.trading.ports import Report
from server.agent.trading_market import Market


class PaperBroker:
    """Keeps nothing that matters: an order that is in the log is placed, also after a restart."""

    poll_s = 0.0

    def __init__(self, market: Market, session: Callable[[], Start | None]) -> None:
        self._market, self._session = market, session
        self._cancelled: set[str] = set()
        self._seen: dict[str, int] = {}  # offset up to which an order has met prices

    async def place(self, order: Order) -> None:
        """Nothing is left to do: its intention is in the log."""

    async def cancel(self, order: Order) -> None:
        """No price fills it any more."""
        self._cancelled.add(order.client_id)

    async def look(self, open_: Sequence[Working]) -> list[Report]:
        """Let each order meet the prices that came after it."""
        ids = {working.order.client_id for working in open_}
        self._seen = {key: value for key, value in self._seen.items() if key in ids}
        self._cancelled &= ids
        reports, waiting = list[Report](), dict[str, list[Order]]()
        for working in open_:
            order, filled = working.order, working.qty == working.order.qty
            if filled or order.client_id in self._cancelled or self._session() is None:
                reports.append(_closed(working))  # filled: a crash came before its end
            else:
                waiting.setdefault(order.symbol, []).append(order)
        for symbol, orders in waiting.items():
            reports += await self._met(symbol, orders)
        return reports

    async def close(self) -> None:
        """It holds nothing."""

    async def _met(self, symbol: str, orders: Sequence[Order]) -> list[Report]:
        """One reading of the prices for all orders on a symbol.

        An order that is filled meets its price again, should the fill not become durable.
        """
        reports, session = list[Report](), self._session()
        if session is None:
            return reports
        begin = min(self._seen.get(order.client_id, order.as_of) for order in orders)
        quotes, reached = await self._market.after(symbol, begin)
        for order in orders:
            seen = self._seen.get(order.client_id, order.as_of)
            new = (quote for quote in quotes if quote.offset > seen)
            found = (fill(order, quote, session.rules) for quote in new)
            report = next((each for each in found if each), None)
            if report:
                reports.append(report)
            else:
                self._seen[order.client_id] = max(seen, reached)
        return reports


def _closed(working: Working) -> Report:
    return Report(
        working.order.client_id,
        "closed",
        qty=working.qty,
        value=working.value,
        fee=working.fee,
    )
