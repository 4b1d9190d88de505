"""Hard limits: what no order may do, whatever led to it.

`refusal` is asked about every order by the gate, with the book as the log has it, so that what was
ordered before a restart counts. Open buys count as if they were filled at their worst price.

The drawdown is measured from the highest equity *marked*. A mark is due (`mark_due`) as soon as
equity exceeds that by `SLACK` of the limit, and trading halts that much before the limit: so a
crash that forgets a peak between two marks cannot make the limit larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ai_bridge.trading.book import DAY_S, MINUTE_S, Account, Book
from ai_bridge.trading.entries import Order
from ai_bridge.trading.modes import Limits
from ai_bridge.trading.money import MAX_PRICE, ZERO, amount, value_of

Prices = Mapping[str, Decimal]
SLACK = Decimal("0.05")
FEE_RESERVE = Decimal("0.005")  # kept of the cash for fees, more than any exchange takes


def halt(account: Account, limits: Limits, prices: Prices) -> str | None:
    """Why trading must stop by itself now: `daily_loss` or `drawdown`."""
    equity = account.equity(prices)
    if account.day_equity - equity >= limits.max_daily_loss:
        return "daily_loss"
    if account.peak + _slack(limits) - equity >= limits.max_drawdown:
        return "drawdown"
    return None


def mark_due(account: Account, limits: Limits, prices: Prices, now: float) -> bool:
    """Whether a new day or a new peak has to become durable before anything else is ordered."""
    if now // DAY_S > account.day:
        return True
    return account.equity(prices) >= account.peak + _slack(limits)


def refusal(order: Order, book: Book, prices: Prices, now: float) -> str | None:
    """Why this order must not be, or None.

    Parameters
    ----------
    prices : the newest known, by symbol; a position without one counts at its last mark
    now : unix seconds
    """
    session, account = book.session, book.account
    if session is None or account is None:
        return "no session trades"
    if order.session != session.session or order.account != session.account:
        return "the order is of another session"
    if order.client_id in book.seen or order.client_id in book.open:
        return "this decision led to an order on this symbol before"
    if order.symbol not in session.symbols:
        return f"{order.symbol} is not traded in this session"
    if not (order.qty > 0 and 0 < order.limit <= MAX_PRICE):
        return "quantity and price must be above 0"
    if mark_due(account, session.limits, prices, now):
        return "the account has to be marked first"
    reason = halt(account, session.limits, prices)
    if reason:
        return f"the limit of {reason.replace('_', ' ')} is reached"
    return _too_many(book, session.limits, now) or _too_large(order, book, session.limits, prices)


def _slack(limits: Limits) -> Decimal:
    return amount(limits.max_drawdown * SLACK)


def _too_many(book: Book, limits: Limits, now: float) -> str | None:
    recent = sum(at > now - MINUTE_S for at in book.ordered_at)
    if recent >= limits.max_orders_per_minute:
        return f"{recent} orders in the last minute; the limit is {limits.max_orders_per_minute}"
    if len(book.open) >= limits.max_open_orders:
        return f"{len(book.open)} orders are open; the limit is {limits.max_open_orders}"
    return None


def _too_large(order: Order, book: Book, limits: Limits, prices: Prices) -> str | None:
    value = value_of(order.qty, order.limit, up=True)
    if value > limits.max_order:
        return f"an order of {value} exceeds the limit of {limits.max_order}"
    if order.side == "sell":
        sellable = free_qty(book, order.symbol)
        return f"only {sellable} can be sold" if order.qty > sellable else None
    for name, room in rooms(book, order.symbol, order.limit, limits, prices).items():
        if value > room:
            return f"{value} exceeds the {room} that {name} leaves"
    return None


def free_qty(book: Book, symbol: str) -> Decimal:
    """What is held and not offered for sale already."""
    account = book.account
    held = account.positions.get(symbol) if account else None
    offered = sum((w.left for w in book.open.values() if _is(w.order, symbol, "sell")), start=ZERO)
    return max(ZERO, held.qty - offered) if held else ZERO


def rooms(
    book: Book, symbol: str, limit: Decimal, limits: Limits, prices: Prices
) -> dict[str, Decimal]:
    """For how much more may be bought, by what bounds it."""
    account = book.account
    if account is None:
        return {"session": ZERO}
    held = account.positions.get(symbol)
    at = max(limit, prices.get(symbol, ZERO))
    buys = [w for w in book.open.values() if w.order.side == "buy"]
    waiting = sum((value_of(w.left, w.order.limit, up=True) for w in buys), ZERO)
    same = sum(
        (value_of(w.left, w.order.limit, up=True) for w in buys if w.order.symbol == symbol), ZERO
    )
    position = value_of(held.qty, at, up=True) if held else ZERO
    exposed = account.held({**prices, symbol: at})
    cash = account.cash - amount(waiting * (1 + FEE_RESERVE))
    return {
        "the largest position": limits.max_position - position - same,
        "the largest exposure": limits.max_exposure - exposed - waiting,
        "the cash": amount(cash / (1 + FEE_RESERVE)),
    }


def _is(order: Order, symbol: str, side: str) -> bool:
    return order.symbol == symbol and order.side == side
