"""The way of an order: the only one from an intention to a broker, and back from its reports.

    order -> gate -> intention durable in the log -> gate -> broker -> reports -> log

What a broker takes its time for runs beside the trader's loop. An order that is open in the book,
whoever sent it, is asked about; none is ever sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING

from ai_bridge.trading.book import Working
from ai_bridge.trading.entries import Entry, Order
from ai_bridge.trading.errors import BrokerUnavailable, OrderRejected
from ai_bridge.trading.gate import Standing, before_intention, before_sending
from ai_bridge.trading.limits import Prices
from ai_bridge.trading.ports import Broker, Report
from ai_bridge.trading.settling import entries_of
from context.errors import ContextError
from server.agent.trading_brokers import Brokers
from server.agent.trading_ledger import Ledger, control

if TYPE_CHECKING:
    from server.agent.node import Node

log = logging.getLogger(__name__)
CANCEL_AGAIN_S = 2.0
CALL_S = 12.0  # a broker that takes longer is asked again


class Dealer:
    """Sends orders and settles them. `wake` tells the trader that there is something to write."""

    def __init__(self, node: Node, ledger: Ledger, brokers: Brokers, wake: asyncio.Event) -> None:
        self._node, self._ledger, self._brokers, self._wake = node, ledger, brokers, wake
        self.sent = self.refused = 0  # at the gate, since the start
        self._reports: dict[str, Report] = {}
        self._sending: set[str] = set()
        self._cancelled: dict[str, float] = {}  # when it was asked for last
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """A new reign: what brokers tell is asked for again."""
        self._reports.clear()
        self._cancelled.clear()

    async def standing(self) -> Standing:
        """How this node stands at this moment."""
        stopped, version = await control(self._node)
        leadership = self._node.leadership
        return Standing(leadership.leading, leadership.term, stopped, version)

    async def issue(self, order: Order, prices: Prices) -> str | None:
        """Through the gate, into the log, and on to the broker."""
        standing = await self.standing()
        why = before_intention(order, self._ledger.book, standing, prices, time.time())
        if why:
            self.refused += 1
            return why
        await self._ledger.tell(order)
        self._sending.add(order.client_id)
        self._node.spawn(self._send(order))
        self.sent += 1
        return None

    async def _send(self, order: Order) -> None:
        """The second passage of the gate, and the one place from which a broker is sent orders."""
        try:
            await self._place(order)
        finally:
            self._sending.discard(order.client_id)
            self._wake.set()

    async def _place(self, order: Order) -> None:
        standing = await self.standing()
        why = before_sending(order, self._ledger.book, standing, time.time())
        if why:
            self.refused += 1
            self._report(Report(order.client_id, "withheld", detail=why))
            return
        try:
            async with asyncio.timeout(CALL_S):
                await self._broker(order).place(order)
        except OrderRejected as refused:
            self._report(Report(order.client_id, "rejected", detail=refused.detail))
        except (BrokerUnavailable, TimeoutError) as fault:  # it may have arrived: `look` finds out
            log.warning("an order's way is unknown", extra={"reason": str(fault)})

    def _report(self, report: Report) -> None:
        """Keep what is to be written down; what ends an order is not taken back."""
        known = self._reports.get(report.client_id)
        if known is None or known.status in ("working", "unknown"):
            self._reports[report.client_id] = report
        self._wake.set()

    async def settle(self, now: float, term: int) -> None:
        """Write down what brokers told, ask about what is open, cancel what has to go."""
        told = list[Entry]()
        reports, self._reports = self._reports, {}
        for client_id, working in list(self._ledger.book.open.items()) if reports else ():
            report = reports.get(client_id)
            if report:
                told += entries_of(working, report, now=now, term=term)
        try:
            await self._ledger.tell(*told)
        except BaseException:
            self._reports = reports | self._reports  # what was withheld must not be looked up
            raise
        self._cancel_due(now)
        if not self._ledger.book.open or (self._looking and not self._looking.done()):
            return
        open_ = [w for key, w in self._ledger.book.open.items() if key not in self._sending]
        broker = self._broker(next(iter(self._ledger.book.open.values())).order)
        if open_ and time.monotonic() - self._looked_at >= broker.poll_s:
            self._looked_at = time.monotonic()
            self._looking = self._node.spawn(self._look(broker, open_))

    def _cancel_due(self, now: float) -> None:
        """Cancel what has expired, or is of a session that is over."""
        session, open_ = self._ledger.book.session, self._ledger.book.open
        self._cancelled = {key: at for key, at in self._cancelled.items() if key in open_}
        for client_id, working in open_.items():
            order, asked = working.order, self._cancelled.get(client_id, 0.0)
            ours = session is not None and order.session == session.session
            due = not ours or now > order.expires_at
            if due and now - asked > CANCEL_AGAIN_S:
                self._cancelled[client_id] = now
                self._node.spawn(self._cancel(order))

    async def _cancel(self, order: Order) -> None:
        with contextlib.suppress(BrokerUnavailable, OrderRejected, TimeoutError):
            async with asyncio.timeout(CALL_S):
                await self._broker(order).cancel(order)
        self._looked_at = 0.0
        self._wake.set()

    async def _look(self, broker: Broker, open_: list[Working]) -> None:
        try:
            async with asyncio.timeout(CALL_S):
                reports = await broker.look(open_)
        except (BrokerUnavailable, ContextError, TimeoutError) as fault:
            log.warning("open orders were not asked about", extra={"reason": str(fault)})
            return
        for report in reports:
            if report.status != "working" or report.qty:
                self._report(report)

    def _broker(self, order: Order) -> Broker:
        return self._brokers.of(order.account)
