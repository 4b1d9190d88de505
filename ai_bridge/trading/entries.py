"""What trading writes into the log: entries of the decisions' chain, of the type `ai_trade`.

Nobody else can store an entry of the chain, so an account is a fold over these alone (`book.py`).
Amounts are decimals, written as text. `at` is unix seconds, `term` the reign that wrote it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from ai_bridge.trading.modes import Limits, Mode

TYPE = "ai_trade"
Side = Literal["buy", "sell"]
Ended = Literal["filled", "cancelled", "expired", "rejected", "withheld", "not_received"]


class Start(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="start"):
    """Trading begins. `control` is the emergency stop's version: a later stop ends this session."""

    at: float
    term: int
    session: str
    mode: str
    rules: Mode
    limits: Limits
    broker: str
    account: str  # broker and currency: each has its own cash and positions
    quote: str
    capital: Decimal  # of an account that is new
    symbols: list[str]
    live: bool = False
    control: int = 0


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="stop"):
    """Trading ends, and does not begin again by itself."""

    at: float
    term: int
    session: str
    reason: Literal["asked", "emergency_stop", "daily_loss", "drawdown", "broker"]
    detail: str = ""


class Mark(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="mark"):
    """The account at these prices: what the day's loss and the drawdown are measured from."""

    at: float
    term: int
    account: str
    prices: dict[str, Decimal]


class Order(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="order"):
    """The intention to trade, durable before a broker hears of it.

    `price` was the newest one known, `as_of` the newest offset; `limit` is the worst price allowed.
    """

    at: float
    term: int
    session: str
    account: str
    client_id: str
    decision_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    limit: Decimal
    as_of: int
    expires_at: float


class Fill(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="fill"):
    """A broker traded. `fee_qty` was taken out of what was bought; `price_offset` is the item that

    a paper fill comes from.
    """

    at: float
    term: int
    account: str
    client_id: str
    decision_id: str
    symbol: str
    side: Side
    qty: Decimal
    value: Decimal
    fee: Decimal
    price: Decimal
    fee_qty: Decimal = Decimal(0)
    price_offset: int | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="done"):
    """An order will not be filled any further."""

    at: float
    term: int
    account: str
    client_id: str
    decision_id: str
    symbol: str
    status: Ended
    detail: str = ""


Entry = Start | Stop | Mark | Order | Fill | Done
_decoder = Start | Stop | Mark | Order | Fill | Done


def entry_of(data: Mapping[str, Any]) -> Entry:
    """Read an item's data; raises msgspec.ValidationError where it is no entry."""
    made: Entry = msgspec.convert(data, _decoder)
    return made


def data_of(entry: Entry) -> dict[str, Any]:
    """An entry as an item's data."""
    made: dict[str, Any] = msgspec.to_builtins(entry)
    return made


def client_id_of(epoch: str, decision_id: str, symbol: str) -> str:
    """The order that a decision leads to on a symbol: the same after every restart, anywhere."""
    text = f"{epoch}\n{decision_id}\n{symbol}".encode()
    return "c" + hashlib.sha256(text).hexdigest()[:31]
