"""The Aggregating Algorithm for the Brier game, with experts that may sleep.

Every expert has a weight. A round's prediction is Vovk & Zhdanov's substitution of the awake
experts' mixture; an outcome multiplies each awake expert's weight by exp(-rate * its Brier loss),
scaled so that the awake ones' total stays what it was. Experts that gave no prediction sleep:
nothing is learned about them.

With `m`, the round's *mixed loss*, the algorithm's loss is at most `m` whatever comes out, and

    sum over the rounds an expert was awake of (m - its loss)  <=  ln(mass / its prior) / rate

where `mass` is all weight there is. So, where weights were up to date at every prediction, the loss
exceeds no expert's by more than that. The rate is 1, less where outcomes are late (`pace`): a
change of it takes every weight to what its losses so far would have made of it at the new rate.

References
----------
Vovk & Zhdanov (2009), Prediction with expert advice for the Brier game, JMLR 10: the game is
mixable for rates up to 1; Algorithm 1 is the substitution.
Freund, Schapire, Singer & Warmuth (1997), Using and combining predictors that specialize, STOC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from ai_bridge.pace import Pace
from ai_bridge.portable import exp, ln

# A weight that underflowed to zero could never come back. What this adds is part of the mass.
MIN_WEIGHT = 1e-12

Weights = dict[str, float]
Distribution = Mapping[str, float]
Losses = dict[str, float]  # by what comes out


def brier(distribution: Distribution, outcome: str) -> float:
    """Squared distance between a distribution and what happened, 0 (certain, right) to 2."""
    return math.fsum(
        (p - (1.0 if name == outcome else 0.0)) ** 2 for name, p in distribution.items()
    )


def losses(distribution: Distribution) -> Losses:
    """The Brier loss for each thing that may come out."""
    squares = 1.0 + math.fsum(p * p for p in distribution.values())
    return {name: squares - 2.0 * p for name, p in distribution.items()}


def mixed_loss(shares: Mapping[str, float], lost: Mapping[str, float], rate: float = 1.0) -> float:
    """Loss of the mixture; `shares` of the experts in `lost` sum to 1."""
    return -ln(math.fsum(shares[name] * exp(-rate * loss) for name, loss in lost.items())) / rate


def mixture(
    shares: Mapping[str, float], lost: Mapping[str, Mapping[str, float]], rate: float = 1.0
) -> Losses:
    """The mixed loss for each thing that may come out.

    Parameters
    ----------
    shares : of each expert, >= 0, with a sum above 0
    lost : what each expert would lose, by what comes out
    """
    total = math.fsum(shares[name] for name in lost)
    parts = {name: shares[name] / total for name in lost}
    return {
        o: mixed_loss(parts, {name: each[o] for name, each in lost.items()}, rate)
        for o in next(iter(lost.values()))
    }


def substitute(mixed: Mapping[str, float]) -> dict[str, float]:
    """The distribution whose Brier loss is at most the mixed loss, whatever comes out."""
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
        self.pace = Pace()
        self.rounds = 0
        # By how much late votes, and higher rates, may have worsened the bound.
        self.late_cost = self.pace_cost = 0.0

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

    def learn(self, lost: Mapping[str, float]) -> float:
        """Learn the losses of those awake, and return the mixed loss; any order is the same."""
        self.rounds += 1
        before = {name: self.weight(name) for name in lost}
        after = {name: before[name] * exp(-self.pace.rate * loss) for name, loss in lost.items()}
        kept = math.fsum(after.values()) / math.fsum(before.values())
        for name, weight in after.items():
            self.weights[name] = max(MIN_WEIGHT, weight / kept)
        return -ln(kept) / self.pace.rate

    def learn_late(self, late: Mapping[str, tuple[float, float]], mixed: float) -> None:
        """Learn from experts that were not part of the mixture, each with its importance.

        A loss below the round's mixed loss gains weight as if the expert had been awake for that
        part of the round, 0 to 1. All weights pay for it alike, so their total stays.
        """
        if not late:
            return
        for name in late:
            self.weights[name] = self.weight(name)
        before, rate = self.mass, self.pace.rate
        for name, (loss, importance) in late.items():
            self.weights[name] *= exp(rate * importance * (mixed - loss))
        grown = self._shrink_to(before)
        self.late_cost += max(0.0, ln(grown)) / rate

    def note_delay(self, delay: int) -> None:
        """Take in how many rounds were judged between a decision and its own outcome."""
        before = self.pace.rate
        self.pace.note(delay)
        power = self.pace.rate / before
        if power == 1.0 or not self.weights:
            return
        mass = self.mass
        for name, weight in self.weights.items():
            prior = self.prior(name)
            self.weights[name] = prior * exp(power * ln(weight / prior))
        grown = self._shrink_to(mass) if power > 1.0 else 1.0
        self.pace_cost += max(0.0, ln(grown)) / self.pace.rate

    def bound(self, name: str) -> float:
        """How far the sum of mixed losses may exceed an expert's loss over its rounds."""
        most = ln(max(1.0, self.mass / self.prior(name))) / self.pace.rate
        return most + self.late_cost + self.pace_cost

    def _shrink_to(self, mass: float) -> float:
        """Scale all weights to a total; returns how much larger it was."""
        grown = self.mass / mass
        self.weights = {n: max(MIN_WEIGHT, w / grown) for n, w in self.weights.items()}
        return grown
