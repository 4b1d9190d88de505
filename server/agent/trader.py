"""The task that trades: reads decisions and prices, orders within the limits, settles, halts.

One loop, one order after the other; what becomes of an order is the dealer's (`trading_dealer.py`).
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
from ai_bridge.trading.book import Book
from ai_bridge.trading.entries import Mark, Start, Stop
from ai_bridge.trading.errors import TradingRefused
from ai_bridge.trading.gate import Standing
from ai_bridge.trading.limits import Prices, halt, mark_due
from ai_bridge.trading.planning import Moment, plan, unfit
from context.errors import ContextError, NotLeader
from server.agent.trading_asking import Asking
from server.agent.trading_brokers import Brokers
from server.agent.trading_dealer import Dealer
from server.agent.trading_ledger import Ledger
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
        self._wake = asyncio.Event()
        self.dealer = Dealer(node, self.ledger, self.brokers, self._wake)
        self.passes: deque[dict[str, Any]] = deque(maxlen=KEPT_PASSES)  # decisions not followed
        self._asking = Asking(node)
        self._lock = asyncio.Lock()
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
            standing = await self.dealer.standing()
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
            await self._node.changed.next(lambda: self.book.session or self.book.open)
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
        self.dealer.forget()
        self.ledger.decisions = deque(await self._asking.recent())
        await self.ledger.catch_up()

    async def _step(self) -> None:
        standing, now = await self.dealer.standing(), time.time()
        await self.ledger.catch_up()
        session = self.book.session
        if session and (standing.stopped or standing.control != session.control):
            await self._stop("emergency_stop")
        await self.dealer.settle(now, self._term)
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
        return await self.dealer.issue(order, prices)

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
