"""Weights for all symbols, and own ones of each symbol as far as they prove better.

Each symbol has a game of its own, in which only its rounds count. The mixture of that game is a
guest in the game of all rounds, awake on its symbol: so it costs the others' bound nothing, and a
symbol's effective weights are

    share of its own game x (weights there) + (1 - that share) x (the weights for all symbols)

A mixture of experts can be an expert itself, so this nesting is the Aggregating Algorithm again:

    against an expert on all symbols:  the whole's bound for the expert
    against an expert on one symbol:   the whole's bound for the symbol's game
                                       + that game's bound for the expert

Each game learns at its own pace: outcomes of other symbols delay the whole, and not a symbol. A
symbol's game is granted nothing below `LEAST_ROUNDS` outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import msgspec

from ai_bridge.weights import Distribution, Level, Weights, losses, mixture, substitute

ON_SYMBOL = "=on "  # and the symbol: the mixture of its game, as an expert of the whole
OWN = "=symbol"  # the same in a decision's record
WHOLE = "=whole"  # in records of older versions: the whole, as an expert of the symbol's game
LEAST_ROUNDS = 100  # of a symbol


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
    outer, inner, nested = whole, symbol, OWN
    if WHOLE in symbol.shares:
        outer, inner, nested = symbol, whole, WHOLE
    effective = _effective(list(said), outer.shares, inner.shares, nested)
    one, *others = said.values()
    if all(other == one for other in others):
        return dict(one), effective
    lost = {name: losses(each) for name, each in said.items()}
    if outer.rate == inner.rate:  # a mixture of mixtures is one mixture then
        return substitute(mixture(effective, lost, outer.rate)), effective
    mixed = {**lost, nested: mixture(inner.shares, lost, inner.rate)}
    return substitute(mixture(outer.shares, mixed, outer.rate)), effective


def _effective(
    names: Collection[str], outer: Mapping[str, float], inner: Mapping[str, float], nested: str
) -> Weights:
    total = math.fsum(inner[name] for name in names)
    whole = math.fsum([outer[nested], *(outer[name] for name in names)])
    return {name: (outer[nested] * inner[name] / total + outer[name]) / whole for name in names}


class Backoff:
    """One game over all rounds, and one for each symbol."""

    def __init__(self, prior: Callable[[str], float], pot: float = 0.0) -> None:
        self.whole = Level(prior, pot)
        self.symbols: dict[str, Level] = {}

    def mixings(self, symbol: str, awake: Collection[str]) -> tuple[Mixing, Mixing]:
        """By what the whole and the symbol mix the awake experts now."""
        own = ON_SYMBOL + symbol
        whole = self.whole.shares([own, *awake])
        whole[OWN] = whole.pop(own)
        level = self._level(symbol)
        return _mixing(self.whole, whole), _mixing(level, level.shares(awake))

    def rounds(self, symbol: str) -> int:
        """How many outcomes were learned on a symbol."""
        return self._level(symbol).rounds

    def shares(self, symbol: str, awake: Collection[str]) -> Weights:
        """Effective weights of the awake experts on a symbol, summing to 1."""
        whole, own = self.mixings(symbol, awake)
        return _effective(awake, whole.shares, own.shares, OWN)

    def leaning(self, symbol: str) -> float:
        """How much a symbol leans on the weights of all, 0..1."""
        own = ON_SYMBOL + symbol
        rest = [name for name in self.whole.weights if not name.startswith(ON_SYMBOL)]
        return 1.0 - self.whole.shares([own, *rest])[own]

    def note_delay(self, symbol: str, over_all: int, here: int) -> None:
        """Take in how many outcomes came before a decision's own: in all, and of its symbol."""
        self.whole.note_delay(over_all)
        self.symbols.setdefault(symbol, self._level(symbol)).note_delay(here)

    def learn(
        self,
        symbol: str,
        lost: Mapping[str, float],
        late: Mapping[str, tuple[float, float]],
        loss: float = math.inf,
    ) -> float:
        """Learn one outcome and return the mixed loss of the game of all rounds.

        Parameters
        ----------
        lost : Brier loss of each expert that was awake
        late : loss and importance (0..1) of those that answered too late
        loss : of the decision itself
        """
        level = self.symbols.setdefault(symbol, self._level(symbol))
        name, own = ON_SYMBOL + symbol, level.learn(lost)
        waiting = (name,) if level.rounds < LEAST_ROUNDS else ()
        mixed = self.whole.learn({**lost, name: own}, loss, waiting)
        level.learn_late(late, own)
        self.whole.learn_late(late, min(mixed, loss))
        return mixed

    def bound_on(self, symbol: str, name: str) -> float:
        """Over the rounds of one symbol, against an expert's loss while it was awake."""
        return self.whole.bound(ON_SYMBOL + symbol) + self.symbols[symbol].bound(name)

    def _level(self, symbol: str) -> Level:
        found = self.symbols.get(symbol)
        return symbol_level() if found is None else found


def symbol_level() -> Level:
    """The game of a symbol as it begins: all alike."""
    return Level(_even)


def _even(name: str) -> float:
    return 1.0


def _mixing(level: Level, shares: Weights) -> Mixing:
    return Mixing(shares=shares, rate=level.pace.rate, outcomes=level.rounds)
