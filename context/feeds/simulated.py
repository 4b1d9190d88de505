"""A random market for trying things out offline, labelled as such in every item.

Each symbol's price is a geometric random walk whose drift and volatility switch between regimes,
with a weak pull back to the starting level so that a node left alone for months stays plausible.
Chance and time come in as arguments: the same chance and times give the same trades.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any, Protocol

from context.feeds.trade import Side, Trade

SOURCE = "simulated"
TRADES_PER_S = 20.0
MAX_GAP_S = 10.0  # a longer silence (a machine asleep) stays a hole, it is not filled in
SPREAD = 0.0001  # between the best bid and ask, as a share of the price
PULL_PER_S = 2e-5  # e-folding time of about 14 hours
START_PRICES = {"BTC": 60_000.0, "ETH": 3_000.0, "SOL": 150.0}


class Chance(Protocol):
    """The part of `random.Random` that the market uses."""

    def random(self) -> float:
        """Uniform in [0, 1)."""

    def gauss(self, mu: float, sigma: float) -> float:
        """Normal."""

    def expovariate(self, lambd: float) -> float:
        """Exponential with mean 1 / lambd."""

    def lognormvariate(self, mu: float, sigma: float) -> float:
        """Exp of a normal."""


@dataclass(frozen=True, slots=True)
class Regime:
    """How the price moves for a while: of the log price, per second and per root second."""

    drift: float
    volatility: float
    mean_s: float


REGIMES = (
    Regime(0.0, 5e-5, 120.0),  # calm
    Regime(6e-6, 1e-4, 60.0),  # rising
    Regime(-6e-6, 1e-4, 60.0),  # falling
    Regime(0.0, 4e-4, 20.0),  # turbulent
)


@dataclass(slots=True)
class _Book:
    symbol: str
    level: float  # log of the starting price
    value: float  # log of the price now
    decimals: int
    moved_at: float
    regime: Regime
    switches_at: float


class Market:
    """All simulated symbols; trades arrive as a Poisson process."""

    def __init__(
        self, symbols: Sequence[str], rng: Chance, start: float, trades_per_s: float = TRADES_PER_S
    ) -> None:
        self._rng = rng
        self._rate = trades_per_s
        self._now = start
        self._next_at = start + rng.expovariate(trades_per_s)
        self._trade_id = int(start * 1000)  # grows over restarts too
        self._books = [self._open(symbol, start) for symbol in symbols]

    def trades(self, until: float) -> Iterator[dict[str, Any]]:
        """Items of all trades after the last call's `until` up to this one (unix seconds)."""
        if not self._now <= until <= self._now + MAX_GAP_S:  # the clock was set, or slept
            self._next_at = until + self._rng.expovariate(self._rate)
        self._now = until
        while self._next_at <= until:
            yield self._trade(self._next_at)
            self._next_at += self._rng.expovariate(self._rate)

    def _open(self, symbol: str, now: float) -> _Book:
        price = START_PRICES.get(symbol.partition("/")[0], 100.0)
        decimals = max(2, 5 - int(log(price, 10)))
        regime = REGIMES[0]
        return _Book(symbol, log(price), log(price), decimals, now, regime, now + regime.mean_s)

    def _trade(self, now: float) -> dict[str, Any]:
        rng = self._rng
        book = self._books[int(rng.random() * len(self._books))]
        self._move(book, now)
        side: Side = "buy" if rng.random() < 0.5 else "sell"
        price = exp(book.value) * (1 + (SPREAD if side == "buy" else -SPREAD) / 2)
        self._trade_id += 1
        trade = Trade(
            symbol=book.symbol,
            price=round(price, book.decimals),
            volume=round(rng.lognormvariate(0, 1.2) * 1_000 / exp(book.level), 8),
            side=side,
            exchange_ts=round(now, 6),
            trade_id=self._trade_id,
        )
        item = trade.item(SOURCE, trade.exchange_ts)
        item["data"]["simulated"] = True
        return item

    def _move(self, book: _Book, now: float) -> None:
        if now >= book.switches_at:
            book.regime = REGIMES[int(self._rng.random() * len(REGIMES))]
            book.switches_at = now + self._rng.expovariate(1 / book.regime.mean_s)
        elapsed = max(0.0, now - book.moved_at)
        pull = (book.level - book.value) * PULL_PER_S
        noise = self._rng.gauss(0, book.regime.volatility * sqrt(elapsed))
        book.value += (book.regime.drift + pull) * elapsed + noise
        book.moved_at = now
