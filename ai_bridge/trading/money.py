"""Exact money: decimals of fixed steps, so that sums are the same in whatever order they are made.

Quantities and amounts are multiples of 1e-8, prices of 1e-12; only products and quotients round.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal

ZERO = Decimal(0)
STEP = Decimal("1e-8")
PRICE_STEP = Decimal("1e-12")
MAX_PRICE = Decimal(10**9)
_EXACT = Context(prec=80)


def amount(value: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
    """Round to a multiple of 1e-8."""
    return value.quantize(STEP, rounding, _EXACT)


def price_of(number: float | str) -> Decimal | None:
    """A price as it was stored, or None where nobody can trade at it."""
    price = Decimal(str(number))
    if not price.is_finite() or not PRICE_STEP <= price <= MAX_PRICE:
        return None
    return price.quantize(PRICE_STEP, context=_EXACT)


def times(price: Decimal, factor: Decimal, rounding: str = ROUND_HALF_EVEN) -> Decimal:
    """A price some share higher or lower."""
    return _EXACT.multiply(price, factor).quantize(PRICE_STEP, rounding, _EXACT)


def value_of(qty: Decimal, price: Decimal, *, up: bool = False) -> Decimal:
    """What a quantity costs; `up` never rounds in favour of who pays."""
    return amount(_EXACT.multiply(qty, price), ROUND_CEILING if up else ROUND_HALF_EVEN)


def qty_for(value: Decimal, price: Decimal) -> Decimal:
    """The largest quantity that costs at most `value`."""
    return max(ZERO, amount(_EXACT.divide(value, price), ROUND_FLOOR))


def share(whole: Decimal, part: Decimal, of: Decimal) -> Decimal:
    """`whole * part / of`, rounded once."""
    return amount(_EXACT.divide(_EXACT.multiply(whole, part), of))
