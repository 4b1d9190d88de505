"""How much worse the consensus was than each expert, and by how much at most it can be.

Regret against an expert is the consensus's Brier loss minus the expert's, summed over the rounds
that the expert took part in; a late answer counts by its importance. It never exceeds the `bound`

    ln((N + 2) / prior of the expert) / rate          the Aggregating Algorithm's (see `weights`)
    + sum of max(0, consensus's loss - mixed loss)    `delay`: what old weights cost
    + sum of max(0, ln of the growth) / rate          `late` votes, and higher rates: `pace`

Where every outcome was known before the next decision and no vote was late, the rate is 1, the
sums are 0, and the bound holds in advance. With delay no bound holds in advance for one set of
weights (only for D + 1 sets that take turns: (D + 1) times the logarithm); then the sums are
measured, and the bound is what holds for the decisions that were taken (proof: docs/consensus.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_bridge.backoff import Backoff
from ai_bridge.experts import CONFIGURED, UNIFORM, is_calibrated

_ROUNDING = 1e-9  # a substituted prediction may exceed the mixed loss by the last bits


@dataclass(frozen=True, slots=True)
class Round:
    """One judged decision.

    `loss` is the consensus's, `mixed` the mixed loss of the weights as they were when the outcome
    came, `delay` how many other outcomes came between; `losses` are the experts', `late` those of
    late answers, each with its importance.
    """

    loss: float
    mixed: float
    delay: int
    losses: Mapping[str, float]
    late: Mapping[str, tuple[float, float]]


class Tally:
    """Losses of one expert and of the consensus over the same rounds."""

    def __init__(self) -> None:
        self.rounds = self.late = 0
        self.own = self.ours = 0.0

    @property
    def regret(self) -> float:
        """How much more the consensus lost."""
        return self.ours - self.own

    def add(self, own: float, ours: float) -> None:
        """Count a round that it was part of in time."""
        self.rounds += 1
        self.own += own
        self.ours += ours

    def add_late(self, own: float, ours: float, importance: float) -> None:
        """Count a round that it answered too late, by its importance."""
        self.late += 1
        self.own += importance * own
        self.ours += importance * ours

    def as_dict(self, bound: float) -> dict[str, Any]:
        """Plain values to show."""
        return {
            "outcomes": self.rounds,
            "late": self.late,
            "loss": self.own,
            "consensus_loss": self.ours,
            "regret": self.regret,
            "bound": bound,
        }


class Book:
    """The rounds of one symbol, or of all."""

    def __init__(self) -> None:
        self.rounds = 0
        self.loss = 0.0
        self.delay_cost = 0.0
        self.most_delay = 0
        self.tallies: dict[str, Tally] = {}

    def add(self, judged: Round) -> None:
        """Count one round."""
        ours, mixed = judged.loss, judged.mixed
        self.rounds += 1
        self.loss += ours
        self.most_delay = max(self.most_delay, judged.delay)
        if ours - mixed > _ROUNDING:
            self.delay_cost += ours - mixed
        for name, own in judged.losses.items():
            self.tallies.setdefault(name, Tally()).add(own, ours)
        for name, (own, importance) in judged.late.items():
            self.tallies.setdefault(name, Tally()).add_late(own, ours, importance)


class Regrets:
    """All rounds, and those of each symbol."""

    def __init__(self, weights: Backoff) -> None:
        self._weights = weights
        self.all = Book()
        self.symbols: dict[str, Book] = {}

    def add(self, symbol: str, judged: Round) -> None:
        """Count one round of a symbol."""
        for book in (self.all, self.symbols.setdefault(symbol, Book())):
            book.add(judged)

    def bound_on(self, symbol: str, name: str) -> float:
        """Regret against an expert on one symbol is at most this.

        The symbol's own, or what is over all symbols less the regret on the others.
        """
        here, over_all = self.symbols[symbol].tallies[name], self.all.tallies[name]
        left = self.bound(name) - (over_all.regret - here.regret)
        return min(left, self._weights.bound_on(symbol, name) + self.symbols[symbol].delay_cost)

    def bound(self, name: str) -> float:
        """Regret against an expert over all symbols is at most this."""
        return self._weights.whole.bound(name) + self.all.delay_cost

    def report(self, symbol: str | None = None) -> dict[str, Any]:
        """The figures of one symbol, or of all."""
        book = self.all if symbol is None else self.symbols[symbol]
        told = {
            name: tally.as_dict(self.bound(name) if symbol is None else self.bound_on(symbol, name))
            for name, tally in sorted(book.tallies.items())
        }
        models = {name: told[name] for name in told if not name.startswith("=")}
        plain = [name for name in models if not is_calibrated(name)]
        best = max(plain, key=lambda name: (models[name]["regret"], name), default=None)
        late, pace, rate = self._costs(symbol)
        return {
            "outcomes": book.rounds,
            "loss": book.loss,
            "best_model": best,
            "regret": models[best]["regret"] if best else None,
            "bound": {
                "kind": "delayed" if book.most_delay or book.delay_cost or late else "undelayed",
                "value": models[best]["bound"] if best else None,
                "rate": rate,
                "delay": book.delay_cost,
                "late": late,
                "pace": pace,
                "most_delay": book.most_delay,
            },
            "models": models,
            "configured": told.get(CONFIGURED),
            "uniform": told.get(UNIFORM),
        }

    def _costs(self, symbol: str | None) -> tuple[float, float, float]:
        """What late votes and higher rates cost in all, and the lowest rate."""
        levels = self._weights.symbols
        part = [self._weights.whole, *([] if symbol is None else [levels[symbol]])]
        late, pace = (sum(e.late_cost for e in part), sum(e.pace_cost for e in part))
        return late, pace, min(each.pace.rate for each in part)
