"""Bodies of the trading calls, checked, and the session that a start asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ai_bridge.errors import InvalidRequest
from ai_bridge.requests import Symbol

DEFAULT_QUOTE = "USD"


class StartRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/context/trading/start`.

    Without `symbols` those that were traded most lately are taken, of the currency `quote` where it
    is given. `ask_every_s` replaces the mode's; 0 follows only decisions that others ask for.
    """

    mode: Annotated[str, Meta(min_length=1, max_length=64)]
    broker: Literal["paper", "ccxt"] = "paper"
    symbols: Annotated[list[Symbol], Meta(min_length=1, max_length=100)] | None = None
    quote: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]{1,16}\Z")] | None = None
    live: bool = False
    confirm: Annotated[str, Meta(max_length=200)] | None = None
    ask_every_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None


def confirmation(exchange: str) -> str:
    """What has to be typed before real money is traded."""
    return f"trade real money on {exchange}"


def currency(symbol: str) -> str:
    """What a symbol such as BTC/USD is priced in; empty where it does not say."""
    return symbol.partition("/")[2].partition(":")[0]


def quote_of(symbols: Sequence[str], quote: str | None) -> str:
    """The one currency of a session; raises InvalidRequest where the symbols are of several."""
    found = {currency(symbol) or quote or DEFAULT_QUOTE for symbol in symbols}
    if len(found) != 1 or (quote and found != {quote}):
        named = ", ".join(sorted(found))
        message = f"an account has one currency, but the symbols are priced in {named}"
        raise InvalidRequest(message, [{"index": 0, "field": "symbols", "message": message}])
    return found.pop()
