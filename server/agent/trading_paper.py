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
        return [await self._met(working) for working in open_]

    async def close(self) -> None:
        """It holds nothing."""

    async def _met(self, working: Working) -> Report:
        order, session = working.order, self._session()
        crashed = working.qty == order.qty  # after the fill, before its end
        if crashed or order.client_id in self._cancelled or session is None:
            return _told(working, "closed")
        seen = self._seen.get(order.client_id, order.as_of)
        for quote in await self._market.after(order.symbol, seen):
            report = fill(order, quote, session.rules)
            if report:
                return report  # it meets this price again, should the fill not become durable
            self._seen[order.client_id] = quote.offset
        return _told(working, "working")


def _told(working: Working, status: str) -> Report:
    return Report(
        working.order.client_id,
        "closed" if status == "closed" else "working",
        qty=working.qty,
        value=working.value,
        fee=working.fee,
    )
