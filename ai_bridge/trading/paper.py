"""The paper broker's market: what a recorded or live price would have filled an order at.

An order meets only prices that came after it: the first one, at which its limit allows for spread
and slippage, fills it whole. So a fill depends on the log alone, and is the same after a restart.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from ai_bridge.trading.entries import Order
from ai_bridge.trading.modes import Mode
from ai_bridge.trading.money import amount, times, value_of
from ai_bridge.trading.planning import Quote
from ai_bridge.trading.ports import Report


def fill_price(order: Order, price: Decimal, rules: Mode) -> Decimal:
    """What one would pay or get beside the market's price: half the spread and the slippage."""
    aside = rules.spread / 2 + rules.slippage
    if order.side == "buy":
        return times(price, 1 + aside, ROUND_CEILING)
    return times(price, 1 - aside, ROUND_FLOOR)


def fill(order: Order, quote: Quote, rules: Mode) -> Report | None:
    """The whole order filled at this price, or None where its limit or its time forbids it."""
    if quote.offset <= order.as_of or quote.at > order.expires_at:
        return None
    price = fill_price(order, quote.price, rules)
    beyond = price > order.limit if order.side == "buy" else price < order.limit
    if beyond or price <= 0:
        return None
    value = value_of(order.qty, price)
    return Report(
        order.client_id,
        "closed",
        qty=order.qty,
        value=value,
        fee=amount(value * rules.fee),
        at=quote.at,
        price_offset=quote.offset,
    )
