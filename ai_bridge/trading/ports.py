"""What trading needs of a broker, stated as promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from ai_bridge.trading.book import Working
from ai_bridge.trading.entries import Order


@dataclass(frozen=True, slots=True)
class Report:
    """How an order is at the broker: sums since it was placed, so that a repeat changes nothing.

    `unknown` is an order that the broker has never heard of, `withheld` one that was not sent.
    """

    client_id: str
    status: Literal["working", "closed", "rejected", "withheld", "unknown"]
    qty: Decimal = Decimal(0)
    value: Decimal = Decimal(0)
    fee: Decimal = Decimal(0)
    fee_qty: Decimal = Decimal(0)
    at: float | None = None
    price_offset: int | None = None
    detail: str = ""


class Broker(Protocol):
    """Somebody who executes orders. Every method may raise BrokerUnavailable."""

    poll_s: float  # how often `look` is worth asking

    async def place(self, order: Order) -> None:
        """Send an order. Raises OrderRejected where it certainly will not be executed."""

    async def look(self, open_: Sequence[Working]) -> list[Report]:
        """How these orders are; one that is left out could not be asked about."""

    async def cancel(self, order: Order) -> None:
        """Have what is left of an order cancelled; `look` tells what became of it."""

    async def close(self) -> None:
        """Let go of connections and processes."""
