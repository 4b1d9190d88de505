"""Accounts, positions and open orders: a fold over the entries of the log.

The same entries give the same book in every bit, on every node and after every restart. A position
is kept by its average cost; profit and loss follow the identity

    equity = cash + positions at their prices = capital + realised - fees + unrealised
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from ai_bridge.trading.entries import Done, Entry, Fill, Mark, Order, Start, Stop
from ai_bridge.trading.money import ZERO, share, value_of

DAY_S, MINUTE_S = 86_400, 60.0
REMEMBER_S = 3600.0  # decisions are too old to act on long before


class Position(msgspec.Struct, kw_only=True):
    """What is held of a symbol, and what was paid for it, fees apart."""

    qty: Decimal = ZERO
    cost: Decimal = ZERO


class Account(msgspec.Struct, kw_only=True):
    """Cash and positions in one currency. `peak` is the highest equity marked in this session,

    `day_equity` the first one of the UTC day `day`, `prices` the last ones marked or traded at.
    """

    capital: Decimal
    cash: Decimal
    realised: Decimal = ZERO
    fees: Decimal = ZERO
    peak: Decimal = ZERO
    day: int = -1
    day_equity: Decimal = ZERO
    positions: dict[str, Position] = {}
    prices: dict[str, Decimal] = {}

    def equity(self, prices: Mapping[str, Decimal]) -> Decimal:
        """What it is worth; where no price is given, at the last one marked."""
        return self.cash + self.held(prices)

    def held(self, prices: Mapping[str, Decimal]) -> Decimal:
        """What its positions are worth."""
        worth = (
            value_of(position.qty, prices.get(symbol) or self.prices[symbol])
            for symbol, position in self.positions.items()
        )
        return sum(worth, ZERO)

    def mark(self, at: float) -> None:
        """Measure from its last prices."""
        equity, day = self.equity(self.prices), int(at // DAY_S)
        self.peak = max(self.peak, equity)
        if day > self.day:
            self.day, self.day_equity = day, equity


class Working(msgspec.Struct, kw_only=True):
    """An order that a broker may still fill."""

    order: Order
    qty: Decimal = ZERO
    value: Decimal = ZERO
    fee: Decimal = ZERO
    fee_qty: Decimal = ZERO

    @property
    def left(self) -> Decimal:
        """Quantity not filled yet."""
        return max(ZERO, self.order.qty - self.qty)


class Book(msgspec.Struct, kw_only=True):
    """All accounts, and the session that trades, if one does. `seq` is the newest entry's."""

    seq: int = -1
    session: Start | None = None
    stopped: Stop | None = None  # how the last session ended
    accounts: dict[str, Account] = {}
    open: dict[str, Working] = {}
    ordered_at: list[float] = []  # in the last minute
    last_order: dict[str, float] = {}  # by symbol
    seen: dict[str, float] = {}  # client ids of the last hour
    orders: int = 0
    fills: int = 0

    @property
    def account(self) -> Account | None:
        """The account of the session."""
        return self.accounts[self.session.account] if self.session else None

    def apply(self, entry: Entry, seq: int) -> None:
        """Take in the next entry."""
        _take(entry, self)
        self.seq = seq


@functools.singledispatch
def _take(entry: Any, book: Book) -> None:
    raise TypeError(f"no entry of trading: {entry!r}")


@_take.register
def _start(entry: Start, book: Book) -> None:
    new = Account(capital=entry.capital, cash=entry.capital)
    account = book.accounts.setdefault(entry.account, new)
    account.peak = account.equity(account.prices)
    account.mark(entry.at)
    book.session = entry


@_take.register
def _stop(entry: Stop, book: Book) -> None:
    book.session, book.stopped = None, entry


@_take.register
def _mark(entry: Mark, book: Book) -> None:
    account = book.accounts[entry.account]
    account.prices.update(entry.prices)
    account.mark(entry.at)


@_take.register
def _order(entry: Order, book: Book) -> None:
    book.open[entry.client_id] = Working(order=entry)
    book.orders += 1
    book.last_order[entry.symbol] = entry.at
    book.ordered_at = [at for at in book.ordered_at if at > entry.at - MINUTE_S] + [entry.at]
    while book.seen and next(iter(book.seen.values())) < entry.at - REMEMBER_S:
        del book.seen[next(iter(book.seen))]
    book.seen[entry.client_id] = entry.at


@_take.register
def _fill(entry: Fill, book: Book) -> None:
    account = book.accounts[entry.account]
    account.prices[entry.symbol] = entry.price
    position = account.positions.setdefault(entry.symbol, Position())
    account.fees += entry.fee
    if entry.side == "buy":
        account.cash -= entry.value + entry.fee
        position.cost += entry.value
        position.qty += entry.qty - entry.fee_qty
    else:
        account.cash += entry.value - entry.fee
        whole = entry.qty >= position.qty
        cost = position.cost if whole else share(position.cost, entry.qty, position.qty)
        account.realised += entry.value - cost
        position.cost -= cost
        position.qty -= entry.qty
    if not position.qty:
        del account.positions[entry.symbol]
    working = book.open[entry.client_id]
    working.qty += entry.qty
    working.value += entry.value
    working.fee += entry.fee
    working.fee_qty += entry.fee_qty
    book.fills += 1
    account.mark(entry.at)


@_take.register
def _done(entry: Done, book: Book) -> None:
    book.open.pop(entry.client_id, None)
