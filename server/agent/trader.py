"""The task that trades: reads decisions and prices, orders within the limits, settles, halts.

One loop, one order after the other; what a broker takes its time for runs beside it. Every order
goes this way, and no other:

    decision -> plan -> gate -> intention durable in the log -> gate -> broker -> reports -> log

Only the leader does any of this. After a restart or under a new term the book is read from the log,
and open orders are asked about at the broker; none is ever sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ai_bridge.errors import BridgeError
from ai_bridge.trading.book import Book, Working
from ai_bridge.trading.entries import Entry, Mark, Order, Start, Stop
from ai_bridge.trading.errors import BrokerUnavailable, OrderRejected, TradingRefused
from ai_bridge.trading.gate import Standing, before_intention, before_sending
from ai_bridge.trading.limits import Prices, halt, mark_due
from ai_bridge.trading.planning import Moment, plan, unfit
from ai_bridge.trading.ports import Broker, Report
from ai_bridge.trading.settling import entries_of
from context.errors import ContextError, NotLeader
from server.agent.trading_asking import Asking
from server.agent.trading_brokers import Brokers
from server.agent.trading_ledger import Ledger, control
from server.agent.trading_market import Market
from server.agent.trading_metrics import TradingMetrics

if TYPE_CHECKING:
    from server.agent.node import Node

log = logging.getLogger(__name__)
REST_S = 0.01  # between two looks, however fast prices come
IDLE_S, BUSY_S = 1.0, 0.1  # longest wait for news
AGAIN_S, FAULT_S = 0.2, 5.0
CANCEL_AGAIN_S = 2.0
CALL_S = 8.0  # a broker that takes longer is asked again
AT_ONCE = 50  # decisions, before the loop looks at everything else again
SAVE_EVERY_S = 60.0
KEPT_PASSES = 50


class Trader:
    """Trading on one node; it acts while the node leads."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.ledger = Ledger(node)
        self.market = Market(node)
        self.brokers = Brokers(node.settings, self.market, lambda: self.book.session)
        self.passes: deque[dict[str, Any]] = deque(maxlen=KEPT_PASSES)  # decisions not followed
        self.sent = self.refused = 0  # at the gate, since the start
        self._asking = Asking(node)
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._reports: dict[str, Report] = {}
        self._sending: set[str] = set()
        self._cancelled: dict[str, float] = {}  # when it was asked for last
        self._looked_at = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._saved_at = time.monotonic()
        self._term = -1
        node.metrics.registry.register(TradingMetrics(self))

    @property
    def book(self) -> Book:
        """Accounts, positions and orders, as the log has them."""
        return self.ledger.book

    # --- from outside ---

    async def begin(self, start: Start) -> None:
        """Start a session; raises TradingRefused, BrokerUnavailable, or what the log raises."""
        async with self._lock:
            standing = await self.standing()
            why = await self._hindrance(standing)
            if why:
                raise TradingRefused(why)
            await self.brokers.open(start.account, start.symbols)
            now = time.time()
            known = self.book.accounts.get(start.account)
            if known:
                prices = await self.market.prices(known.positions)
                mark = Mark(at=now, term=standing.term, account=start.account, prices=prices)
                await self.ledger.tell(mark)
            await self.ledger.tell(start)
        self._wake.set()

    async def end(self) -> None:
        """End the session, if one trades; its open orders are cancelled."""
        async with self._lock:
            if not self._node.leadership.leading:
                raise NotLeader("this node does not lead; ask again")
            await self.ledger.catch_up()
            if self.book.session:
                await self._stop("asked")
        self._wake.set()

    async def standing(self) -> Standing:
        """How this node stands at this moment."""
        stopped, version = await control(self._node)
        leadership = self._node.leadership
        return Standing(leadership.leading, leadership.term, stopped, version)

    async def look(self) -> None:
        """Bring the book up to date on a node that does not lead."""
        async with self._lock:
            await self.ledger.catch_up()

    async def _hindrance(self, standing: Standing) -> str | None:
        if not standing.leading:
            raise NotLeader("this node does not lead; ask again")
        if standing.stopped:
            return "the emergency stop is on; resume first"
        await self.ledger.catch_up()
        session = self.book.session
        if session:
            return f"trading runs already in the mode {session.mode}; stop it first"
        if self.ledger.hole:
            first, last = self.ledger.hole
            return f"items {first} to {last} are damaged: the accounts may lack entries"
        if self.book.open:
            return f"{len(self.book.open)} orders of the last session are not settled yet"
        return None

    # --- the loop ---

    async def start(self) -> None:
        """Read the book, then trade whenever this node leads and a session is on."""
        await self.ledger.recall()
        self._node.spawn(self._hear())
        self._node.spawn(self._hear_of_leaders())
        self._node.spawn(self._run())

    async def _run(self) -> None:
        try:
            while True:
                try:
                    await self._round()
                except (ContextError, BridgeError) as fault:  # a full disk, a newer leader, ...
                    log.warning("trading waits", extra={"reason": str(fault)})
                    await asyncio.sleep(AGAIN_S)
                except Exception:  # nothing is ordered meanwhile; the next round begins anew
                    log.exception("trading failed and tries again")
                    self.ledger.certain = False
                    await asyncio.sleep(FAULT_S)
        finally:
            await self.brokers.close()
            if self._node.leadership.leading:
                await self.ledger.save()

    async def _round(self) -> None:
        leadership = self._node.leadership
        if leadership.leading:
            async with self._lock:
                await self._reign(leadership.term)
                await self._step()
        else:
            self._term, self.ledger.decisions = -1, None
            await self.look()
        busy = self.book.session is not None or bool(self.book.open)
        await asyncio.sleep(REST_S)
        with contextlib.suppress(TimeoutError):
            # Not `wait_for`: in Python 3.11 it forgets a cancellation that comes with the wake-up.
            async with asyncio.timeout(BUSY_S if busy else IDLE_S):
                await self._wake.wait()
        self._wake.clear()

    async def _hear(self) -> None:
        """Wake up for what comes into the log, while there is something to do."""
        while True:
            async with self._node.changed:
                await self._node.changed.wait()
            if self.book.session or self.book.open:
                self._wake.set()

    async def _hear_of_leaders(self) -> None:
        changed = self._node.leadership.changed
        while True:
            async with changed:
                await changed.wait()
            self._wake.set()

    async def _reign(self, term: int) -> None:
        """Once a term: what is open may be another leader's, and is asked about."""
        if term == self._term:
            return
        self._term, self.ledger.certain = term, False
        self._reports.clear()
        self._cancelled.clear()
        self.ledger.decisions = deque(await self._asking.recent())
        await self.ledger.catch_up()

    async def _step(self) -> None:
        standing, now = await self.standing(), time.time()
        await self.ledger.catch_up()
        session = self.book.session
        if session and (standing.stopped or standing.control != session.control):
            await self._stop("emergency_stop")
        await self._settle(now)
        if self.book.session:
            await self._trade(self.book.session)
        elif self.ledger.decisions:
            self.ledger.decisions.clear()
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self._saved_at = time.monotonic()
            await self.ledger.save()

    async def _trade(self, session: Start) -> None:
        """Halt where a limit is reached, else follow the decisions that came."""
        account = self.book.accounts[session.account]
        prices = await self._marked(session, ())
        reason = halt(account, session.limits, prices)
        if reason:
            await self._stop(reason, f"equity {account.equity(prices)} of {account.capital}")
            return
        self._asking.ask(session)
        decisions = self.ledger.decisions or deque()
        for _ in range(min(AT_ONCE, len(decisions))):
            await self._follow(decisions.popleft(), session)
        if decisions:
            self._wake.set()

    async def _marked(self, session: Start, symbols: Iterable[str]) -> Prices:
        """The newest prices of these symbols and of what is held; marks the account if due."""
        account = self.book.accounts[session.account]
        prices = await self.market.prices({*symbols, *account.positions})
        now = time.time()
        if not self.ledger.certain or mark_due(account, session.limits, prices, now):
            held = {
                symbol: price for symbol, price in prices.items() if symbol in account.positions
            }
            mark = Mark(at=now, term=self._term, account=session.account, prices=held)
            await self.ledger.tell(mark)
        return prices

    async def _follow(self, record: Mapping[str, Any], session: Start) -> None:
        why = unfit(record, session, time.time())
        if why:
            self._pass(record, None, why)
            return
        for symbol in record["symbols"]:
            why = await self._order(record, str(symbol), session)
            if why:
                self._pass(record, str(symbol), why)

    async def _order(self, record: Mapping[str, Any], symbol: str, session: Start) -> str | None:
        """Act on one symbol of a decision; tells why not."""
        prices = await self._marked(session, (symbol,))
        quote = await self.market.quote(symbol)
        as_of, epoch = self._node.snapshot().newest, self._node.log.epoch
        moment = Moment(time.time(), self._term, epoch, as_of)
        order = plan(record, symbol, quote, self.book, moment)
        if isinstance(order, str):
            return order
        return await self._issue(order, prices)

    # --- an order's way ---

    async def _issue(self, order: Order, prices: Prices) -> str | None:
        """Through the gate, into the log, and on to the broker."""
        standing = await self.standing()
        why = before_intention(order, self.book, standing, prices, time.time())
        if why:
            self.refused += 1
            return why
        await self.ledger.tell(order)
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
        why = before_sending(order, self.book, standing, time.time())
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

    async def _settle(self, now: float) -> None:
        """Write down what brokers told, ask about what is open, cancel what has to go."""
        told = list[Entry]()
        reports, self._reports = self._reports, {}
        for client_id, working in list(self.book.open.items()) if reports else ():
            report = reports.get(client_id)
            if report:
                told += entries_of(working, report, now=now, term=self._term)
        try:
            await self.ledger.tell(*told)
        except BaseException:
            self._reports = reports | self._reports  # what was withheld must not be looked up
            raise
        self._cancel_due(now)
        if not self.book.open or (self._looking and not self._looking.done()):
            return
        open_ = [w for key, w in self.book.open.items() if key not in self._sending]
        broker = self._broker(next(iter(self.book.open.values())).order)
        if open_ and time.monotonic() - self._looked_at >= broker.poll_s:
            self._looked_at = time.monotonic()
            self._looking = self._node.spawn(self._look(broker, open_))

    def _cancel_due(self, now: float) -> None:
        """Cancel what has expired, or is of a session that is over."""
        session = self.book.session
        self._cancelled = {k: at for k, at in self._cancelled.items() if k in self.book.open}
        for client_id, working in self.book.open.items():
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
        return self.brokers.of(order.account)

    async def _stop(self, reason: Any, detail: str = "") -> None:
        session = self.book.session
        assert session is not None
        stop = Stop(
            at=time.time(),
            term=self._node.leadership.term,
            session=session.session,
            reason=reason,
            detail=detail,
        )
        await self.ledger.tell(stop)
        log.warning("trading stopped", extra={"reason": reason})

    def _pass(self, record: Mapping[str, Any], symbol: str | None, why: str) -> None:
        told = {"decision_id": record.get("decision_id"), "symbol": symbol, "why": why}
        self.passes.append({"at": time.time(), **told})
