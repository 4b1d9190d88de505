"""Weights of each symbol that lean on the weights of all symbols while little is known of it.

The mixture of all symbols is one more expert of every symbol's own game, and begins with most of
the weight there. So a symbol's effective weights are

    share of the whole x (weights of the whole) + (1 - that share) x (the symbol's own weights)

and move to its own ones as far as outcomes show that they are better. A mixture of experts can be
an expert itself, so this nesting is the Aggregating Algorithm again, and bounds add up:

    against an expert on one symbol:   the symbol's bound for the expert
    against an expert on all symbols:  the whole's bound for the expert
                                       + sum over symbols of the symbol's bound for the whole

The second holds for experts that were awake in every round; for others the sum of the first does.
Each game learns at its own pace: outcomes of other symbols delay the whole, and not a symbol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import msgspec

from ai_bridge.weights import Distribution, Level, Weights, losses, mixture, substitute

WHOLE = "=whole"  # the mixture of all symbols, as an expert of one symbol
WHOLE_PRIOR = 20.0  # experts begin at 1 and below: with six of them it holds three quarters


class Mixing(msgspec.Struct, frozen=True, kw_only=True):
    """By what one game mixes its experts: their shares, the rate, and outcomes known before."""

    shares: dict[str, float]
    rate: float
    outcomes: int


def predict(
    said: Mapping[str, Distribution], whole: Mixing, symbol: Mixing
) -> tuple[dict[str, float], Weights]:
    """The consensus of what experts say, and their effective weights; who agrees is followed.

    Experts that say nothing are left out: the others' shares count in proportion.
    """
    effective = _effective(list(said), whole.shares, symbol.shares)
    one, *others = said.values()
    if all(other == one for other in others):
        return dict(one), effective
    lost = {name: losses(each) for name, each in said.items()}
    if whole.rate == symbol.rate:  # a mixture of mixtures is one mixture then
        return substitute(mixture(effective, lost, whole.rate)), effective
    nested = {**lost, WHOLE: mixture(whole.shares, lost, whole.rate)}
    return substitute(mixture(symbol.shares, nested, symbol.rate)), effective


def _effective(
    names: Collection[str], whole: Mapping[str, float], symbol: Mapping[str, float]
) -> Weights:
    total = math.fsum(whole[name] for name in names)
    own = math.fsum([symbol[WHOLE], *(symbol[name] for name in names)])
    return {name: (symbol[WHOLE] * whole[name] / total + symbol[name]) / own for name in names}


class Backoff:
    """One game over all rounds, and one for each symbol."""

    def __init__(self, prior: Callable[[str], float]) -> None:
        self._prior = prior
        self.whole = Level(prior)
        self.symbols: dict[str, Level] = {}

    def mixings(self, symbol: str, awake: Collection[str]) -> tuple[Mixing, Mixing]:
        """By what the whole and the symbol mix the awake experts now."""
        level = self._level(symbol)
        return _mixing(self.whole, awake), _mixing(level, [WHOLE, *awake])

    def rounds(self, symbol: str) -> int:
        """How many outcomes were learned on a symbol."""
        return self._level(symbol).rounds

    def shares(self, symbol: str, awake: Collection[str]) -> Weights:
        """Effective weights of the awake experts on a symbol, summing to 1."""
        whole, own = self.mixings(symbol, awake)
        return _effective(awake, whole.shares, own.shares)

    def leaning(self, symbol: str) -> float:
        """How much a symbol leans on the weights of all, 0..1."""
        level = self._level(symbol)
        return level.shares([WHOLE, *(name for name in self.whole.weights)])[WHOLE]

    def note_delay(self, symbol: str, over_all: int, here: int) -> None:
        """Take in how many outcomes came before a decision's own: in all, and of its symbol."""
        self.whole.note_delay(over_all)
        self.symbols.setdefault(symbol, self._level(symbol)).note_delay(here)

    def learn(
        self,
        symbol: str,
        lost: Mapping[str, float],
        late: Mapping[str, tuple[float, float]],
    ) -> float:
        """Learn one outcome and return the mixed loss of the symbol's game.

        Parameters
        ----------
        lost : Brier loss of each expert that was awake
        late : loss and importance (0..1) of those that answered too late
        """
        level = self.symbols.setdefault(symbol, self._level(symbol))
        whole = self.whole.learn(lost)
        mixed = level.learn({**lost, WHOLE: whole})
        level.learn_late(late, mixed)
        self.whole.learn_late(late, whole)
        return mixed

    def bound_on(self, symbol: str, name: str) -> float:
        """Over the rounds of one symbol, against an expert's loss while it was awake."""
        return self._level(symbol).bound(name)

    def bound_over_all(self, name: str) -> float:
        """Over all rounds, against an expert that was awake in every one."""
        leaning = math.fsum(level.bound(WHOLE) for level in self.symbols.values())
        return self.whole.bound(name) + leaning

    def _level(self, symbol: str) -> Level:
        found = self.symbols.get(symbol)
        return Level(self._own_prior) if found is None else found

    def _own_prior(self, name: str) -> float:
        return WHOLE_PRIOR if name == WHOLE else self._prior(name)


def _mixing(level: Level, awake: Collection[str]) -> Mixing:
    return Mixing(shares=level.shares(awake), rate=level.pace.rate, outcomes=level.rounds)
