"""The Aggregating Algorithm for the Brier game, with experts that may sleep.

Every expert has a weight. A round's prediction is Vovk & Zhdanov's substitution of the awake
experts' mixture; an outcome multiplies each awake expert's weight by exp(-its Brier loss), scaled
so that the awake ones' total stays what it was. Experts that gave no prediction sleep: nothing is
learned about them.

With `m`, the round's *mixed loss*, the algorithm's loss is at most `m` whatever comes out, and

    sum over the rounds an expert was awake of (m - its loss)  <=  ln(mass / its prior)

where `mass` is all weight there is. So, where weights were up to date at every prediction, the loss
exceeds no expert's by more than that logarithm.

References
----------
Vovk & Zhdanov (2009), Prediction with expert advice for the Brier game, JMLR 10: the game is
mixable for ETA up to 1; Algorithm 1 is the substitution.
Freund, Schapire, Singer & Warmuth (1997), Using and combining predictors that specialize, STOC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from ai_bridge.portable import exp, ln

ETA = 1.0  # the largest learning rate for which the Brier game is mixable
# A weight that underflowed to zero could never come back. What this adds is part of the mass.
MIN_WEIGHT = 1e-12

Weights = dict[str, float]
Distribution = Mapping[str, float]


def brier(distribution: Distribution, outcome: str) -> float:
    """Squared distance between a distribution and what happened, 0 (certain, right) to 2."""
    return math.fsum(
        (p - (1.0 if name == outcome else 0.0)) ** 2 for name, p in distribution.items()
    )


def mixed_loss(shares: Mapping[str, float], losses: Mapping[str, float]) -> float:
    """Loss of the mixture; `shares` of the experts in `losses` sum to 1."""
    return -ln(math.fsum(shares[name] * exp(-loss) for name, loss in losses.items()))


def substitute(
    shares: Mapping[str, float], predictions: Mapping[str, Distribution]
) -> dict[str, float]:
    """The distribution whose Brier loss is at most the mixed loss, whatever comes out.

    Parameters
    ----------
    shares : of each expert, >= 0, with a sum above 0
    predictions : a distribution of each expert, all over the same decisions
    """
    one, *others = predictions.values()
    if all(other == one for other in others):
        return dict(one)
    total = math.fsum(shares[name] for name in predictions)
    # exp(-loss if o comes out) = exp(2 p(o) - 1 - sum of squares)
    flat = {
        name: shares[name] / total * exp(-1.0 - math.fsum(p * p for p in said.values()))
        for name, said in predictions.items()
    }
    mixed = {
        o: -ln(math.fsum(flat[name] * exp(2.0 * said[o]) for name, said in predictions.items()))
        for o in one
    }
    level = _level(sorted(mixed.values()))
    return {o: max(0.0, level - loss) / 2.0 for o, loss in mixed.items()}


def _level(ascending: list[float]) -> float:
    """The s for which the parts of s above these numbers sum to 2."""
    level = math.inf
    for count in range(1, len(ascending) + 1):
        if level <= ascending[count - 1]:
            break
        level = (2.0 + math.fsum(ascending[:count])) / count
    return level


class Level:
    """Weights of experts that compete with each other.

    An expert begins with its prior when it is awake for the first time.
    """

    def __init__(self, prior: Callable[[str], float]) -> None:
        self.prior = prior
        self.weights: Weights = {}
        self.late_cost = 0.0  # by how much late training may have worsened the bound

    @property
    def mass(self) -> float:
        """All weight there is."""
        return math.fsum(self.weights.values())

    def weight(self, name: str) -> float:
        """An expert's weight now."""
        found = self.weights.get(name)
        return self.prior(name) if found is None else found

    def shares(self, awake: Iterable[str]) -> Weights:
        """Weights of the awake ones, summing to 1."""
        raw = {name: self.weight(name) for name in awake}
        total = math.fsum(raw.values())
        return {name: weight / total for name, weight in raw.items()}

    def learn(self, losses: Mapping[str, float]) -> float:
        """Learn the losses of those awake, and return the mixed loss; any order is the same."""
        before = {name: self.weight(name) for name in losses}
        after = {name: before[name] * exp(-ETA * loss) for name, loss in losses.items()}
        kept = math.fsum(after.values()) / math.fsum(before.values())
        for name, weight in after.items():
            self.weights[name] = max(MIN_WEIGHT, weight / kept)
        return -ln(kept)

    def learn_late(self, late: Mapping[str, tuple[float, float]], mixed: float) -> None:
        """Learn from experts that were not part of the mixture, each with its importance.

        A loss below the round's mixed loss gains weight as if the expert had been awake for that
        part of the round, 0 to 1. All weights pay for it alike, so their total stays.
        """
        if not late:
            return
        for name in late:
            self.weights[name] = self.weight(name)
        before = self.mass
        for name, (loss, importance) in late.items():
            self.weights[name] *= exp(importance * (mixed - loss))
        grown = self.mass / before
        self.weights = {n: max(MIN_WEIGHT, w / grown) for n, w in self.weights.items()}
        self.late_cost += max(0.0, ln(grown))


def bound(level: Level, name: str) -> float:
    """How far the sum of mixed losses may exceed an expert's loss over its rounds."""
    return ln(max(1.0, level.mass / level.prior(name))) + level.late_cost
