"""Recorded prices of one symbol as arrays: what every model looks at."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MAX_TIMESTAMP = 1e11  # year 5138: anything beyond is not a time, and bars could not count it
_SIDES = {"buy": 1.0, "sell": -1.0}


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one symbol from one source, in log order (oldest first).

    All arrays are float64 of the same length. Timestamps are event times in unix seconds and
    may step back a little: exchanges deliver so. Prices are positive. `sides` is +1 where the
    taker bought, -1 where it sold, 0 where the producer did not say.
    """

    symbol: str
    source: str
    timestamps: Floats
    prices: Floats
    volumes: Floats
    sides: Floats

    def __len__(self) -> int:
        return len(self.prices)

    @property
    def key(self) -> str:
        """Identity of the market: the same symbol at another source is another market."""
        return f"{self.source}|{self.symbol}"

    @classmethod
    def of(cls, symbol: str, items: Iterable[Mapping[str, Any]]) -> Series:
        """Build the window of a symbol from decoded `trading_data` items, oldest first.

        Items of other symbols or types, without a positive price or a sane time are left out.
        Prices of different sources never mix: the newest fitting item's source is kept.
        """
        fitting = [item for item in items if _fits(item) and item["data"]["symbol"] == symbol]
        if not fitting:
            return cls._built(symbol, "unknown", [])
        source = _source(fitting[-1])
        return cls._built(symbol, source, [item for item in fitting if _source(item) == source])

    @classmethod
    def each(cls, items: Iterable[Mapping[str, Any]]) -> list[Series]:
        """Build one series for every market (source and symbol) among the items, oldest first."""
        markets: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for item in items:
            if _fits(item):
                markets.setdefault((item["data"]["symbol"], _source(item)), []).append(item)
        return [cls._built(*market, items) for market, items in markets.items()]

    @classmethod
    def _built(cls, symbol: str, source: str, items: list[Mapping[str, Any]]) -> Series:
        datas = [item["data"] for item in items]
        return cls(
            symbol=symbol,
            source=source,
            timestamps=np.array([item["timestamp"] for item in items], dtype=np.float64),
            prices=np.array([data["price"] for data in datas], dtype=np.float64),
            volumes=np.array([data.get("volume", 0.0) for data in datas], dtype=np.float64),
            sides=np.array([_side(data.get("side")) for data in datas], dtype=np.float64),
        )


def _fits(item: Mapping[str, Any]) -> bool:
    if item["type"] != "trading_data" or abs(item["timestamp"]) >= MAX_TIMESTAMP:
        return False
    price = item["data"]["price"]
    return math.isfinite(price) and price > 0


def _source(item: Mapping[str, Any]) -> str:
    return str(item.get("source", "unknown"))


def _side(value: object) -> float:
    return _SIDES.get(value.lower(), 0.0) if isinstance(value, str) else 0.0
