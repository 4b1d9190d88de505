"""From a decision to an order, or to the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from ai_bridge.trading.book import Book
from ai_bridge.trading.entries import Order, Side, Start, client_id_of
from ai_bridge.trading.limits import Prices, free_qty, rooms
from ai_bridge.trading.money import ZERO, qty_for, times, value_of

LEAST = Decimal("0.1")  # of an ordinary order: what is smaller is not worth its fees


@dataclass(frozen=True, slots=True)
class Quote:
    """The newest price of a symbol: where it stands in the log, and when it came there."""

    price: Decimal
    offset: int
    at: float


@dataclass(frozen=True, slots=True)
class Moment:
    """When and where an order is planned."""

    now: float
    term: int
    epoch: str
    as_of: int  # newest offset


def unfit(record: Mapping[str, Any], session: Start, now: float) -> str | None:
    """Why a decision is not followed, or None."""
    rules = session.rules
    if record.get("abstained"):
        return "the models abstained"
    if record.get("final_decision") not in ("buy", "sell"):
        return "it is neither buy nor sell"
    if not set(record.get("symbols") or ()) & set(session.symbols):
        return "its symbols are not traded in this session"
    for field, least in (("confidence", rules.min_confidence), ("agreement", rules.min_agreement)):
        value = record.get(field)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
            return f"{field} is below {least}"
    asked_at = record.get("asked_at")
    if not isinstance(asked_at, int | float) or not now - asked_at <= rules.decision_age_s:
        return f"it is older than {rules.decision_age_s:g} s"
    if asked_at < session.at:
        return "it was taken before this session began"
    return None


def plan(
    record: Mapping[str, Any], symbol: str, quote: Quote | None, book: Book, moment: Moment
) -> Order | str:
    """The order that a fitting decision leads to on one of its symbols, or why there is none."""
    session = book.session
    if session is None:
        return "no session trades"
    rules, now = session.rules, moment.now
    if symbol not in session.symbols:
        return f"{symbol} is not traded in this session"
    if quote is None or now - quote.at > rules.price_age_s:
        return f"no price of {symbol} in the last {rules.price_age_s:g} s"
    if now - book.last_order.get(symbol, -math.inf) < rules.pause_s:
        return f"less than {rules.pause_s:g} s after the last order on {symbol}"
    side: Side = "buy" if record["final_decision"] == "buy" else "sell"
    if side == "buy":
        limit = times(quote.price, 1 + rules.tolerance, ROUND_FLOOR)
    else:
        limit = times(quote.price, 1 - rules.tolerance, ROUND_CEILING)
    qty = _size(side, symbol, limit, book, {symbol: quote.price})
    least = LEAST * min(rules.order * session.capital, session.limits.max_order)
    if not qty or (side == "buy" and value_of(qty, limit) < least):
        return "nothing is held to sell" if side == "sell" else "the limits leave no room to buy"
    decision_id = str(record["decision_id"])
    return Order(
        at=now,
        term=moment.term,
        session=session.session,
        account=session.account,
        client_id=client_id_of(moment.epoch, decision_id, symbol),
        decision_id=decision_id,
        symbol=symbol,
        side=side,
        qty=qty,
        price=quote.price,
        limit=limit,
        as_of=moment.as_of,
        expires_at=now + rules.ttl_s,
    )


def _size(side: Side, symbol: str, limit: Decimal, book: Book, prices: Prices) -> Decimal:
    """How much: an ordinary order's worth, or all that is held, as far as the limits allow."""
    session = book.session
    if session is None:
        return ZERO
    most = session.limits.max_order
    if side == "sell":
        return min(free_qty(book, symbol), qty_for(most, limit))
    room = min(rooms(book, symbol, limit, session.limits, prices).values())
    return qty_for(max(ZERO, min(session.rules.order * session.capital, most, room)), limit)
