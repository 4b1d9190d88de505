"""Weights of each symbol that lean on the weights of all symbols while little is known of it.

The mixture of all symbols is one more expert of every symbol's own game, and begins with most of
the weight there. So a symbol's effective weights are

    share of the whole x (weights of the whole) + (1 - that share) x (the symbol's own weights)

and move to its own ones as far as outcomes show that they are better. As both games are mixable
with the same learning rate, this nesting is the Aggregating Algorithm again, and bounds add up:

    against an expert on one symbol:   ln(mass of the symbol / prior of the expert)
    against an expert on all symbols:  ln(mass of the whole / prior of the expert)
                                       + sum over symbols of ln(mass of the symbol / WHOLE_PRIOR)

The second holds for experts that were awake in every round; for others the sum of the first does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

from ai_bridge.weights import Level, Weights, bound, mixed_loss

WHOLE = "=whole"  # the mixture of all symbols, as an expert of one symbol
WHOLE_PRIOR = 20.0  # experts begin at 1 and below: with six of them it holds three quarters


class Backoff:
    """One game over all rounds, and one for each symbol."""

    def __init__(self, prior: Callable[[str], float]) -> None:
        self._prior = prior
        self.whole = Level(prior)
        self.symbols: dict[str, Level] = {}

    def shares(self, symbol: str, awake: Collection[str]) -> Weights:
        """Effective weights of the awake experts on a symbol, summing to 1."""
        whole = self.whole.shares(awake)
        own = self._level(symbol).shares([WHOLE, *awake])
        return {name: own[WHOLE] * whole[name] + own[name] for name in awake}

    def leaning(self, symbol: str) -> float:
        """How much a symbol leans on the weights of all, 0..1."""
        level = self._level(symbol)
        return level.shares([WHOLE, *(name for name in self.whole.weights)])[WHOLE]

    def learn(
        self,
        symbol: str,
        losses: Mapping[str, float],
        late: Mapping[str, tuple[float, float]],
    ) -> float:
        """Learn one outcome and return the mixed loss of the symbol's effective weights.

        Parameters
        ----------
        losses : Brier loss of each expert that was awake
        late : loss and importance (0..1) of those that answered too late
        """
        level = self.symbols.setdefault(symbol, self._level(symbol))
        whole = mixed_loss(self.whole.shares(losses), losses)
        mixed = level.learn({**losses, WHOLE: whole})
        self.whole.learn(losses)
        level.learn_late(late, mixed)
        self.whole.learn_late(late, whole)
        return mixed

    def bound_on(self, symbol: str, name: str) -> float:
        """Over the rounds of one symbol, against an expert's loss while it was awake."""
        return bound(self._level(symbol), name)

    def bound_over_all(self, name: str) -> float:
        """Over all rounds, against an expert that was awake in every one."""
        leaning = math.fsum(bound(level, WHOLE) for level in self.symbols.values())
        return bound(self.whole, name) + leaning

    def _level(self, symbol: str) -> Level:
        found = self.symbols.get(symbol)
        return Level(self._own_prior) if found is None else found

    def _own_prior(self, name: str) -> float:
        return WHOLE_PRIOR if name == WHOLE else self._prior(name)
