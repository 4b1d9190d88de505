"""Trading as arithmetic: exact accounts, and limits that no sequence of events gets beyond."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge.errors import InvalidRequest
from ai_bridge.trading.book import Book
from ai_bridge.trading.entries import (
    Entry,
    Fill,
    Mark,
    Order,
    Start,
    Stop,
    client_id_of,
    data_of,
    entry_of,
)
from ai_bridge.trading.gate import Standing, before_intention, before_sending, stands
from ai_bridge.trading.limits import halt, mark_due
from ai_bridge.trading.modes import MODES, Mode, all_modes, limits_of
from ai_bridge.trading.money import price_of, qty_for, value_of
from ai_bridge.trading.paper import fill, fill_price
from ai_bridge.trading.planning import Moment, Quote, plan, unfit
from ai_bridge.trading.ports import Report
from ai_bridge.trading.requests import quote_of
from ai_bridge.trading.settling import LOST_AFTER_S, entries_of
from ai_bridge.trading.showing import shown

SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD")
CAPITAL = Decimal(10_000)
T0 = 1_790_000_000.0
TIGHT: dict[str, Any] = {  # so that short sequences come near every limit
    "pause_s": 0.0,
    "max_orders_per_minute": 4,
    "max_open_orders": 3,
    "max_position": Decimal("0.03"),
    "max_exposure": Decimal("0.045"),
    "max_daily_loss": Decimal("0.003"),
    "max_drawdown": Decimal("0.004"),
}
Json = dict[str, Any]


def start(mode: str = "high_volume", at: float = T0, **changes: Any) -> Start:
    rules = msgspec.structs.replace(MODES[mode], **changes)
    return Start(
        at=at,
        term=1,
        session=f"t{at}",
        mode=mode,
        rules=rules,
        limits=limits_of(rules, CAPITAL),
        broker="paper",
        account="paper:USD",
        quote="USD",
        capital=CAPITAL,
        symbols=list(SYMBOLS),
    )


def decision(action: str, symbol: str, at: float, number: int) -> Json:
    return {
        "decision_id": f"d{number}",
        "final_decision": action,
        "symbols": [symbol],
        "confidence": 0.9,
        "agreement": 1.0,
        "asked_at": at,
    }


@dataclass
class Desk:
    """The trader's loop without its edges; its log is the list of entries, encoded."""

    book: Book = field(default_factory=Book)
    log: list[bytes] = field(default_factory=list)
    now: float = T0
    offset: int = 0
    decisions: int = 0
    prices: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(SYMBOLS, Decimal(100)))
    priced_at: dict[str, tuple[int, float]] = field(
        default_factory=lambda: dict.fromkeys(SYMBOLS, (0, T0))
    )

    def tell(self, entry: Entry) -> None:
        line = msgspec.json.encode(data_of(entry))
        self.book.apply(entry_of(msgspec.json.decode(line)), len(self.log))
        self.log.append(line)

    def restart(self) -> None:
        """Forget everything but the log."""
        again = Book()
        for seq, line in enumerate(self.log):
            again.apply(entry_of(msgspec.json.decode(line)), seq)
        assert again == self.book
        assert msgspec.json.encode(again) == msgspec.json.encode(self.book)
        self.book = again

    def step(self) -> None:
        """Mark and halt, as the loop does before it follows decisions."""
        session, account = self.book.session, self.book.account
        if session is None or account is None:
            return
        if mark_due(account, session.limits, self.prices, self.now):
            held = {name: self.prices[name] for name in account.positions}
            self.tell(Mark(at=self.now, term=1, account=session.account, prices=held))
        reason = halt(account, session.limits, self.prices)
        if reason:
            self.tell(Stop(at=self.now, term=1, session=session.session, reason=reason))  # type: ignore[arg-type]

    def price(self, symbol: str, factor: Decimal) -> None:
        moved = price_of(str(self.prices[symbol] * factor))
        self.offset += 1
        self.prices[symbol] = moved or self.prices[symbol]
        self.priced_at[symbol] = self.offset, self.now
        quote = Quote(self.prices[symbol], self.offset, self.now)
        for working in list(self.book.open.values()):
            if working.order.symbol == symbol and self.book.session:
                report = fill(working.order, quote, self.book.session.rules)
                if report:
                    self.settle(report)

    def settle(self, report: Report) -> None:
        working = self.book.open[report.client_id]
        for entry in entries_of(working, report, now=self.now, term=1):
            self.tell(entry)

    def decide(self, action: str, symbol: str) -> Order | None:
        """Follow a decision as the loop does."""
        self.step()
        self.decisions += 1
        record = decision(action, symbol, self.now, self.decisions)
        session = self.book.session
        if session is None or unfit(record, session, self.now):
            return None
        quote = Quote(self.prices[symbol], *self.priced_at[symbol])
        order = plan(record, symbol, quote, self.book, Moment(self.now, 1, "e", self.offset))
        return self.issue(order) if isinstance(order, Order) else None

    def issue(self, order: Order) -> Order | None:
        standing = Standing(leading=True, term=1, stopped=False, control=0)
        if before_intention(order, self.book, standing, self.prices, self.now):
            return None
        self.tell(order)
        return order


# --- limits ---

# What may happen, how often, on what, and how.
ACTIONS: list[tuple[str, int, tuple[str, ...], tuple[str, ...]]] = [
    ("price", 8, SYMBOLS, ("0.9", "0.99", "0.999", "1", "1.001", "1.01", "1.1")),
    ("decide", 6, SYMBOLS, ("buy", "sell")),
    ("buy", 10, SYMBOLS, ("1", "50", "150", "199", "201", "5000")),
    ("sell", 4, SYMBOLS, ("1", "50", "150", "199", "201", "5000")),
    ("wait", 2, ("",), ("0.5", "6", "61", "90000")),
    ("end", 2, ("",), ("",)),
    ("restart", 1, ("",), ("",)),
    ("stop", 1, ("",), ("",)),
    ("start", 3, ("",), ("high_volume", "conservative")),
]


def events(seed: int, count: int) -> Iterator[tuple[str, str, str]]:
    """A sequence that comes again with its seed; calm or wild, hasty or slow."""
    chance = random.Random(seed)
    bias = {kind: chance.choice((0.2, 1, 1, 4)) for kind, *_ in ACTIONS}
    weights = [weight * bias[kind] for kind, weight, *_ in ACTIONS]
    for kind, _, symbols, hows in chance.choices(ACTIONS, weights, k=count):
        yield kind, chance.choice(symbols), chance.choice(hows)


class Watch:
    """Judges every order by sums of its own, in fractions, from the log alone."""

    def __init__(self) -> None:
        self.cash, self.held = Fraction(0), dict.fromkeys(SYMBOLS, Fraction(0))
        self.open: dict[str, tuple[str, str, Fraction, Fraction]] = {}
        self.times: list[float] = []
        self.peak = self.day_equity = Fraction(0)
        self.day, self.trading = -1, False
        self.limits: Any = None

    def equity(self, prices: Mapping[str, Decimal]) -> Fraction:
        return self.cash + sum(qty * Fraction(prices[name]) for name, qty in self.held.items())

    def see(self, entry: Entry, prices: Mapping[str, Decimal]) -> None:
        match entry:
            case Start():
                if self.limits is None:
                    self.cash = Fraction(entry.capital)
                self.limits, self.trading = entry.limits, True
                self.peak = self.equity(prices)
            case Stop():
                self.trading = False
            case Order():
                self.judge(entry, prices)
                value = Fraction(entry.qty) * Fraction(entry.limit)
                self.open[entry.client_id] = entry.side, entry.symbol, value, Fraction(entry.qty)
                self.times.append(entry.at)
            case Fill():
                side = 1 if entry.side == "buy" else -1
                self.cash -= side * Fraction(entry.value) + Fraction(entry.fee)
                self.held[entry.symbol] += side * Fraction(entry.qty)
                assert self.cash >= 0
                assert self.held[entry.symbol] >= 0
            case _:
                self.open.pop(getattr(entry, "client_id", ""), None)

    def pass_time(self, at: float, prices: Mapping[str, Decimal]) -> None:
        """The day and the peak, as a stopwatch beside it would note them at every look."""
        equity = self.equity(prices)
        if at // 86_400 > self.day:
            self.day, self.day_equity = int(at // 86_400), equity
        self.peak = max(self.peak, equity)

    def judge(self, order: Order, prices: Mapping[str, Decimal]) -> None:
        limits, value = self.limits, Fraction(order.qty) * Fraction(order.limit)
        assert self.trading
        assert order.client_id not in self.open
        assert 0 < value <= limits.max_order
        assert sum(at > order.at - 60 for at in self.times) < limits.max_orders_per_minute
        assert len(self.open) < limits.max_open_orders
        cent = Fraction(1, 1000)  # every value in the book is rounded to 1e-8
        equity = self.equity(prices)
        assert self.day_equity - equity < Fraction(limits.max_daily_loss) + cent
        assert self.peak - equity < Fraction(limits.max_drawdown) + cent
        if order.side == "buy":
            buys = [each for each in self.open.values() if each[0] == "buy"]
            at = max(Fraction(order.limit), Fraction(prices[order.symbol]))
            same = sum(each[2] for each in buys if each[1] == order.symbol)
            assert self.held[order.symbol] * at + same + value <= limits.max_position
            worth = sum(qty * Fraction(prices[name]) for name, qty in self.held.items())
            assert (
                worth + sum(each[2] for each in buys) + value
                <= Fraction(limits.max_exposure) + cent
            )
        else:
            sells = [each for each in self.open.values() if each[:2] == ("sell", order.symbol)]
            offered = sum(each[3] for each in sells)
            assert offered + Fraction(order.qty) <= self.held[order.symbol]


def act(desk: Desk, kind: str, symbol: str, how: str) -> None:
    match kind:
        case "price":
            desk.price(symbol, Decimal(how))
            desk.step()
        case "decide":
            desk.decide(how, symbol)
        case "buy" | "sell" as side:  # whatever a plan may come to, the gate stands by itself
            desk.step()
            desk.decisions += 1
            desk.issue(msgspec.structs.replace(raw(desk, symbol, Decimal(how)), side=side))
        case "wait":
            desk.now += float(how)
            for each in SYMBOLS:
                desk.price(each, Decimal(1))
            desk.step()
        case "end" if desk.book.open:
            client_id = next(iter(desk.book.open))
            desk.settle(Report(client_id, "closed"))
        case "restart":
            desk.restart()
        case "stop" if desk.book.session:
            desk.tell(Stop(at=desk.now, term=1, session=desk.book.session.session, reason="asked"))
        case "start" if not desk.book.session and not desk.book.open:
            account = desk.book.accounts.get("paper:USD")
            if account:
                desk.tell(Mark(at=desk.now, term=1, account="paper:USD", prices=dict(desk.prices)))
            desk.tell(start(how, desk.now, **TIGHT))


def raw(desk: Desk, symbol: str, value: Decimal) -> Order:
    limit = desk.prices[symbol]
    number = f"r{desk.decisions}"
    return Order(
        at=desk.now,
        term=1,
        session=desk.book.session.session if desk.book.session else "none",
        account="paper:USD",
        client_id=client_id_of("e", number, symbol),
        decision_id=number,
        symbol=symbol,
        side="buy",
        qty=qty_for(value, limit),
        price=limit,
        limit=limit,
        as_of=desk.offset,
        expires_at=desk.now + 10,
    )


@given(st.integers(0, 1 << 32))
def test_no_sequence_of_events_gets_beyond_a_limit(seed: int) -> None:
    desk, watch, seen = Desk(), Watch(), 0
    desk.tell(start(**TIGHT))
    for action in events(seed, 150):
        act(desk, *action)
        for line in desk.log[seen:]:
            watch.see(entry_of(msgspec.json.decode(line)), desk.prices)
        seen = len(desk.log)
        if desk.book.session:
            watch.pass_time(desk.now, desk.prices)
    desk.restart()


def test_a_loss_halts_by_itself_and_the_day_stays_lost() -> None:
    desk = Desk()
    desk.tell(start(pause_s=0.0, max_daily_loss=Decimal("0.001"), ttl_s=1000.0))
    assert desk.decide("buy", "BTC/USD")
    desk.now += 1
    desk.price("BTC/USD", Decimal(1))
    assert desk.book.fills == 1
    desk.price("BTC/USD", Decimal("0.8"))
    desk.restart()
    assert desk.decide("buy", "ETH/USD") is None
    assert desk.book.stopped
    assert desk.book.stopped.reason == "daily_loss"
    desk.tell(start(at=desk.now, pause_s=0.0, max_daily_loss=Decimal("0.001")))
    assert desk.decide("buy", "ETH/USD") is None  # a new session does not begin a new day
    assert desk.book.session is None


def test_a_peak_between_two_marks_is_not_forgotten_by_a_crash() -> None:
    desk = Desk()
    changes: Json = {"max_drawdown": Decimal("0.002"), "max_daily_loss": Decimal(1), "pause_s": 0.0}
    desk.tell(start(**changes))
    assert desk.decide("buy", "BTC/USD")
    desk.price("BTC/USD", Decimal(1))
    desk.price("BTC/USD", Decimal("1.1"))  # equity rises by 10, a mark is due
    desk.step()
    desk.restart()
    desk.price("BTC/USD", Decimal("0.81"))  # and falls by 20.9; the limit is 20
    assert desk.decide("buy", "ETH/USD") is None
    assert desk.book.stopped
    assert desk.book.stopped.reason == "drawdown"


# --- accounts ---


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["buy", "sell"]),
            st.sampled_from(SYMBOLS),
            st.integers(1, 10**10),  # quantity in steps of 1e-8
            st.integers(1, 10**9),  # price in steps of 1e-4
            st.integers(0, 500),  # fee in hundredths of a percent
        ),
        max_size=60,
    )
)
def test_accounts_equal_an_independent_reference(trades: list[tuple[Any, ...]]) -> None:
    desk = Desk()
    desk.tell(start())
    cash, lots = CAPITAL, {symbol: list[tuple[Decimal, Decimal]]() for symbol in SYMBOLS}
    for number, (side, symbol, steps, price_steps, fee_share) in enumerate(trades):
        held = sum((qty for qty, _ in lots[symbol]), Decimal(0))
        qty = Decimal(steps).scaleb(-8)
        if side == "sell":
            qty = min(qty, held)
            if not qty:
                continue
        price = Decimal(price_steps).scaleb(-4)
        value = value_of(qty, price)
        fee = (value * fee_share / 10_000).quantize(Decimal("1e-8"))
        fake = raw(desk, symbol, Decimal(100))
        client_id = f"c{number}"
        desk.tell(msgspec.structs.replace(fake, client_id=client_id, side=side, qty=qty))
        desk.settle(Report(client_id, "closed", qty=qty, value=value, fee=fee))
        if side == "buy":
            cash -= value + fee
            lots[symbol].append((qty, value))
        else:
            cash += value - fee
            lots[symbol] = reduced(lots[symbol], held - qty)
    account = desk.book.accounts["paper:USD"]
    assert account.cash == cash
    for symbol in SYMBOLS:
        held = sum((qty for qty, _ in lots[symbol]), Decimal(0))
        position = account.positions.get(symbol)
        assert (position.qty if position else 0) == held
    prices = dict.fromkeys(SYMBOLS, Decimal("123.45"))
    cost = sum((position.cost for position in account.positions.values()), Decimal(0))
    unrealised = account.held(prices) - cost
    assert account.equity(prices) == CAPITAL + account.realised - account.fees + unrealised
    for symbol, position in account.positions.items():  # the average cost, in exact fractions
        exact = sum((Fraction(value) for _, value in lots[symbol]), Fraction(0))
        assert abs(Fraction(position.cost) - exact) <= Fraction(len(trades), 10**8)
    desk.restart()
    view = shown(desk.book, prices)
    assert Decimal(view["accounts"][0]["cash"]) == cash


def reduced(lots: list[tuple[Decimal, Any]], left: Decimal) -> list[tuple[Decimal, Any]]:
    """What is left of a position at its average cost, unrounded."""
    held = sum((qty for qty, _ in lots), Decimal(0))
    cost = sum((Fraction(value) for _, value in lots), Fraction(0))
    return [(left, cost * Fraction(left) / Fraction(held))] if left else []


def test_what_a_broker_tells_twice_counts_once() -> None:
    desk = Desk()
    desk.tell(start())
    order = desk.issue(raw(desk, "BTC/USD", Decimal(100)))
    assert order
    half = order.qty / 2
    part = Report(order.client_id, "working", qty=half, value=Decimal(50), fee=Decimal("0.05"))
    desk.settle(part)
    desk.settle(part)
    whole = Report(order.client_id, "closed", qty=order.qty, value=Decimal(101), fee=Decimal("0.1"))
    desk.restart()
    desk.settle(whole)
    account = desk.book.accounts["paper:USD"]
    assert account.cash == CAPITAL - 101 - Decimal("0.1")
    assert (desk.book.fills, desk.book.open) == (2, {})


def test_an_order_that_the_broker_never_got_is_not_given_up_too_early() -> None:
    desk = Desk()
    desk.tell(start())
    order = desk.issue(raw(desk, "BTC/USD", Decimal(100)))
    assert order
    unknown = Report(order.client_id, "unknown")
    desk.settle(unknown)
    assert order.client_id in desk.book.open
    desk.now += LOST_AFTER_S + 1
    desk.settle(unknown)
    assert not desk.book.open
    assert desk.issue(order) is None  # and it is not ordered again


# --- the paper market ---


@given(st.integers(1, 10**9), st.sampled_from(["buy", "sell"]))
def test_paper_fills_are_never_better_than_the_market_nor_worse_than_the_limit(
    price_steps: int, side: Any
) -> None:
    rules, price = MODES["balanced"], Decimal(price_steps).scaleb(-4)
    filled = fill_price(
        msgspec.structs.replace(raw(Desk(), "BTC/USD", Decimal(1)), side=side), price, rules
    )
    aside = rules.spread / 2 + rules.slippage
    if side == "buy":
        assert price * (1 + aside) <= filled < price * (1 + aside) + Decimal("1e-11")
    else:
        assert price * (1 - aside) >= filled > price * (1 - aside) - Decimal("1e-11")


@pytest.mark.parametrize(
    ("offset", "at", "price", "filled"),
    [
        (0, 0.0, "100", False),  # known when it was ordered
        (1, 0.0, "100", True),
        (1, 10.0, "100", True),
        (1, 10.1, "100", False),  # too late
        (1, 0.0, "99", True),
        (1, 0.0, "100.5", False),  # beyond the limit
    ],
)
def test_an_order_meets_only_prices_after_it_within_limit_and_time(
    offset: int, at: float, price: str, filled: bool
) -> None:
    order = raw(Desk(), "BTC/USD", Decimal(100))
    order = msgspec.structs.replace(order, limit=Decimal("100.1"))
    report = fill(order, Quote(Decimal(price), offset, T0 + at), MODES["balanced"])
    assert (report is not None) == filled
    if report:
        assert report.value <= value_of(order.qty, order.limit)
        assert report.fee == (report.value * MODES["balanced"].fee).quantize(Decimal("1e-8"))


# --- decisions and modes ---


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"abstained": True}, "abstained"),
        ({"final_decision": "hold"}, "neither"),
        ({"final_decision": "raise"}, "neither"),
        ({"symbols": ["X/USD"]}, "not traded"),
        ({"symbols": None}, "not traded"),
        ({"confidence": 0.39}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"agreement": None}, "agreement"),
        ({"asked_at": T0 - 6}, "older"),
        ({"asked_at": T0 - 1}, "before this session"),
        ({"asked_at": float("nan")}, "older"),
        ({"asked_at": "now"}, "older"),
    ],
)
def test_decisions_that_are_not_followed(change: Json, why: str) -> None:
    record = decision("buy", "BTC/USD", T0, 1)
    assert unfit(record, start(), T0) is None
    assert why in str(unfit(record | change, start(), T0))


def test_no_order_twice_too_soon_or_at_an_old_price() -> None:
    desk = Desk()
    desk.tell(start())
    order = desk.decide("buy", "BTC/USD")
    assert order
    assert value_of(order.qty, order.limit) <= CAPITAL * MODES["high_volume"].order
    assert desk.decide("buy", "BTC/USD") is None
    assert desk.decide("sell", "ETH/USD") is None  # nothing is held, and nothing is sold short
    desk.now += 11
    assert desk.decide("buy", "BTC/USD") is None  # the price is older than 10 s
    desk.price("BTC/USD", Decimal(1))
    assert desk.decide("buy", "BTC/USD")


@pytest.mark.parametrize(
    ("standing", "why"),
    [
        (Standing(True, 1, False, 0), None),
        (Standing(True, 1, True, 0), "emergency stop"),
        (Standing(True, 1, False, 2), "ended this session"),  # stopped and resumed meanwhile
        (Standing(False, 1, False, 0), "lead"),
        (Standing(True, 2, False, 0), "term"),
    ],
)
def test_the_gate(standing: Standing, why: str | None) -> None:
    desk = Desk()
    desk.tell(start())
    order = raw(desk, "BTC/USD", Decimal(100))
    first = before_intention(order, desk.book, standing, desk.prices, desk.now)
    assert (first is None) == (why is None)
    desk.tell(order)
    second = before_sending(order, desk.book, standing, desk.now)
    for told in (first, second, stands(desk.book, standing, 1)):
        assert (told is None) if why is None else (why in str(told))
    assert "too old" in str(before_sending(order, desk.book, standing, desk.now + 6))


def test_modes_are_data() -> None:
    table = msgspec.to_builtins(MODES["balanced"])
    mine = all_modes({"mine": table | {"order": 0.005}})["mine"]
    assert mine.order == Decimal("0.005")
    for mode in MODES.values():
        assert mode.order <= mode.max_order <= mode.max_position <= mode.max_exposure <= 1
    for wrong in ({"order": 2}, {"order": 0}, {"fee": -1}, {"max_orders_per_minute": 0}, {"x": 1}):
        with pytest.raises(InvalidRequest, match=r"trading_modes\.mine"):
            all_modes({"mine": table | wrong})
    with pytest.raises(InvalidRequest, match="built in"):
        all_modes({"balanced": table})


def test_an_account_has_one_currency() -> None:
    assert quote_of(["BTC/USDT", "ETH/USDT"], None) == "USDT"
    assert quote_of(["AAPL"], None) == "USD"
    with pytest.raises(InvalidRequest, match="EUR, USD"):
        quote_of(["BTC/USD", "BTC/EUR"], None)


def test_every_field_of_a_mode_counts_in_its_limits() -> None:
    limits = limits_of(MODES["conservative"], Decimal(1000))
    assert msgspec.to_builtins(limits) == {
        "max_order": "20.00000000",
        "max_position": "50.00000000",
        "max_exposure": "150.00000000",
        "max_orders_per_minute": 2,
        "max_open_orders": 2,
        "max_daily_loss": "10.00000000",
        "max_drawdown": "20.00000000",
    }
    assert isinstance(MODES["conservative"], Mode)
