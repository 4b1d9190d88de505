"""Modes of trading as data: how large, how often, and the limits that stop it.

`MODES` are built in; a node's setting `trading_modes` adds others. Shares are of the account's
capital; `limits` makes amounts of them, which the start of a session records, so that neither a
later change of a mode nor of the table changes what was in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ai_bridge.errors import InvalidRequest
from ai_bridge.trading.money import amount

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class Mode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to trade. Times are seconds, shares are of the capital.

    Which decisions are followed: `min_confidence`, `min_agreement`. How often: `ask_every_s` (the
    models are asked about each symbol), `pause_s` (between two orders on a symbol). How large:
    `order`. What is too old: `decision_age_s`, `price_age_s`; how long an order may wait: `ttl_s`;
    how far its price may lie from the newest one: `tolerance`. Costs of the paper broker: `spread`
    (between bid and ask), `slippage` and `fee`, each a share of the price. The rest are limits.
    """

    min_confidence: Annotated[float, Meta(ge=0, le=1)]
    min_agreement: Annotated[float, Meta(ge=0, le=1)]
    ask_every_s: Annotated[float, Meta(ge=0, le=86_400)]
    pause_s: Annotated[float, Meta(ge=0, le=86_400)]
    decision_age_s: Seconds
    price_age_s: Seconds
    ttl_s: Seconds
    tolerance: Decimal
    spread: Decimal = Decimal("0.0002")
    slippage: Decimal = Decimal("0.0002")
    fee: Decimal = Decimal("0.001")
    order: Decimal
    max_order: Decimal
    max_position: Decimal
    max_exposure: Decimal
    max_orders_per_minute: Annotated[int, Meta(ge=1, le=100_000)]
    max_open_orders: Annotated[int, Meta(ge=1, le=1000)]
    max_daily_loss: Decimal
    max_drawdown: Decimal

    def __post_init__(self) -> None:
        for name in ("order", *_LIMITS):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1")
        for name in ("tolerance", "spread", "slippage", "fee"):
            if not 0 <= getattr(self, name) <= Decimal("0.2"):
                raise ValueError(f"{name} must be from 0 to 0.2")


_LIMITS = ("max_order", "max_position", "max_exposure", "max_daily_loss", "max_drawdown")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What no order may exceed, as amounts of the account's currency."""

    max_order: Decimal
    max_position: Decimal
    max_exposure: Decimal
    max_orders_per_minute: int
    max_open_orders: int
    max_daily_loss: Decimal
    max_drawdown: Decimal


MODES: Mapping[str, Mode] = {
    "conservative": Mode(
        min_confidence=0.6,
        min_agreement=0.66,
        ask_every_s=60.0,
        pause_s=300.0,
        decision_age_s=15.0,
        price_age_s=60.0,
        ttl_s=30.0,
        tolerance=Decimal("0.002"),
        order=Decimal("0.01"),
        max_order=Decimal("0.02"),
        max_position=Decimal("0.05"),
        max_exposure=Decimal("0.15"),
        max_orders_per_minute=2,
        max_open_orders=2,
        max_daily_loss=Decimal("0.01"),
        max_drawdown=Decimal("0.02"),
    ),
    "balanced": Mode(
        min_confidence=0.5,
        min_agreement=0.5,
        ask_every_s=15.0,
        pause_s=60.0,
        decision_age_s=10.0,
        price_age_s=30.0,
        ttl_s=20.0,
        tolerance=Decimal("0.003"),
        order=Decimal("0.02"),
        max_order=Decimal("0.04"),
        max_position=Decimal("0.1"),
        max_exposure=Decimal("0.4"),
        max_orders_per_minute=6,
        max_open_orders=4,
        max_daily_loss=Decimal("0.02"),
        max_drawdown=Decimal("0.05"),
    ),
    "high_volume": Mode(
        min_confidence=0.4,
        min_agreement=0.0,
        ask_every_s=2.0,
        pause_s=5.0,
        decision_age_s=5.0,
        price_age_s=10.0,
        ttl_s=10.0,
        tolerance=Decimal("0.005"),
        order=Decimal("0.01"),
        max_order=Decimal("0.02"),
        max_position=Decimal("0.15"),
        max_exposure=Decimal("0.8"),
        max_orders_per_minute=60,
        max_open_orders=20,
        max_daily_loss=Decimal("0.03"),
        max_drawdown=Decimal("0.08"),
    ),
}


def all_modes(tables: Mapping[str, Any]) -> dict[str, Mode]:
    """The built-in modes and those of the settings.

    Raises InvalidRequest where a table is no mode, or has the name of a built-in one.
    """
    modes = dict(MODES)
    for name, table in tables.items():
        if name in MODES:
            raise InvalidRequest(f"trading_modes.{name}: this mode is built in; take another name")
        try:
            modes[name] = msgspec.convert(table, Mode, strict=False)
        except msgspec.ValidationError as wrong:
            raise InvalidRequest(f"trading_modes.{name}: {wrong}") from wrong
    return modes


def limits_of(mode: Mode, capital: Decimal) -> Limits:
    """A mode's limits for this capital."""
    amounts = {name: amount(getattr(mode, name) * capital) for name in _LIMITS}
    return Limits(
        **amounts,
        max_orders_per_minute=mode.max_orders_per_minute,
        max_open_orders=mode.max_open_orders,
    )
