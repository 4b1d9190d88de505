"""What a reader wants apart from the text: types, source, symbol and a span of event time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that must all hold; None asks for nothing. Hashable: equal wishes share work.

    `symbol` is compared with `data.symbol` where that is text. `since` and `until` are unix seconds
    of event time (`timestamp`), both inclusive.
    """

    types: frozenset[str] | None = None
    source: str | None = None
    symbol: str | None = None
    since: float | None = None
    until: float | None = None
