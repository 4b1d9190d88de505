"""The Aggregating Algorithm for the Brier game, with experts that may sleep, and guests.

Every expert has a weight. A round's prediction is Vovk & Zhdanov's substitution of the awake
experts' mixture, whose loss is at most the round's *mixed loss* `m` whatever comes out. An outcome
multiplies each awake expert's weight by

    exp(rate * (g - its Brier loss)),    g = min(m, loss of the prediction that was given)

so that it is its prior * exp(rate * what the consensus lost more than it did). Experts that gave no
prediction sleep: nothing is learned about them. With `m` for `g` the awake ones' total would stay
what it was; with `g` it never grows. So no weight ever exceeds the `mass`, the sum of all priors:

    sum over the rounds an expert was awake of (g - its loss)  <=  ln(mass / its prior) / rate

Where weights were up to date at every prediction, g is the loss itself, and the bound is that on
the regret. What no expert holds is *free*: what was never given away (`pot`), and what predictions
were better than the mixed loss. It goes to *guests*, experts without a prior, bit by bit; whatever
they do with it, the others' bound stays. The rate is 1, less where outcomes are late (`pace`): a
change of it takes every weight to what its losses so far would have made of it at the new rate.

References
----------
Vovk & Zhdanov (2009), Prediction with expert advice for the Brier game, JMLR 10: the game is
mixable for rates up to 1; Algorithm 1 is the substitution.
Freund, Schapire, Singer & Warmuth (1997), Using and combining predictors that specialize, STOC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping

from ai_bridge.pace import Pace
from ai_bridge.portable import exp, ln

# A weight that underflowed could never come back: the first is paid out of what is free; the second
# is too small to change a sum.
LEAST, TINY = 1e-12, 1e-300
GRANTED = 0.1  # part of what is free that the guests of a round are given together

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

    An expert begins with its prior when it is awake for the first time; a guest, whose prior is 0,
    with what it is granted. `pot` is free from the beginning.
    """

    def __init__(self, prior: Callable[[str], float], pot: float = 0.0) -> None:
        self.prior = prior
        self.mass = pot
        self.weights: Weights = {}
        self.ahead: dict[str, float] = {}  # each one's sum of (g - its loss)
        self.pace = Pace()
        self.rounds = 0
        # By how much late votes, and higher rates, may have worsened the bound.
        self.late_cost = self.pace_cost = 0.0

    @property
    def free(self) -> float:
        """The part of the mass that no expert holds."""
        return max(0.0, self.mass - math.fsum(self.weights.values()))

    def weight(self, name: str) -> float:
        """An expert's weight now."""
        found = self.weights.get(name)
        return self.prior(name) if found is None else found

    def shares(self, awake: Iterable[str]) -> Weights:
        """Weights of the awake ones, summing to 1."""
        raw = {name: self.weight(name) for name in awake}
        total = math.fsum(raw.values())
        return {name: weight / total for name, weight in raw.items()}

    def learn(
        self, lost: Mapping[str, float], loss: float = math.inf, waiting: Collection[str] = ()
    ) -> float:
        """Learn the losses of those awake, and return the mixed loss; any order is the same.

        `lost` names one expert with a prior at least; `loss` is that of the prediction that was
        given; `waiting` are guests that are granted nothing yet.
        """
        self.rounds += 1
        self._welcome(lost)
        rate = self.pace.rate
        after = {name: self.weights[name] * exp(-rate * each) for name, each in lost.items()}
        kept = math.fsum(after.values()) / math.fsum(self.weights[name] for name in lost)
        mixed = -ln(kept) / rate
        if loss < mixed:
            kept = exp(-rate * loss)
        for name, weight in after.items():
            self.weights[name] = weight / kept
            self.ahead[name] += min(mixed, loss) - lost[name]
        self._lift(lost)
        self._grant([name for name in lost if not self.prior(name) and name not in waiting])
        return mixed

    def learn_late(self, late: Mapping[str, tuple[float, float]], given: float) -> None:
        """Learn from experts that were not part of the mixture, each with its importance.

        A loss below `given`, the round's g, gains weight as if the expert had been awake for that
        part of the round, 0 to 1. Where that exceeds the mass, all weights pay for it alike.
        """
        if not late:
            return
        self._welcome(late)
        for name, (loss, importance) in late.items():
            self.weights[name] *= exp(self.pace.rate * importance * (given - loss))
            self.ahead[name] += importance * (given - loss)
        self._lift(late)
        self.late_cost += self._fit() / self.pace.rate

    def note_delay(self, delay: int) -> None:
        """Take in how many rounds were judged between a decision and its own outcome."""
        before = self.pace.rate
        self.pace.note(delay)
        power = self.pace.rate / before
        if power == 1.0 or not self.weights:
            return
        for name, weight in self.weights.items():
            prior = self.prior(name) or 1.0
            if weight:
                self.weights[name] = prior * exp(power * ln(weight / prior))
        self._lift(self.weights)
        self._seat_guests()
        self.pace_cost += self._fit() / self.pace.rate

    def bound(self, name: str) -> float:
        """How far the sum of g may exceed an expert's loss over its rounds.

        For a guest it counts from what it was granted: infinite before it holds anything.
        """
        costs, begun = self.late_cost + self.pace_cost, self.prior(name)
        if begun:
            return ln(max(1.0, self.mass / begun)) / self.pace.rate + costs
        held = self.weight(name)
        if not held:
            return math.inf
        return self.ahead[name] + ln(max(1.0, self.mass / held)) / self.pace.rate

    def _welcome(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.weights:
                self.weights[name] = begun = self.prior(name)
                self.ahead[name] = 0.0
                self.mass += begun

    def _lift(self, names: Iterable[str]) -> None:
        """No weight falls too low to come back."""
        least = LEAST if self.free > LEAST * len(self.weights) else TINY
        for name in names:
            if self.prior(name):
                self.weights[name] = max(least, self.weights[name])

    def _grant(self, guests: Collection[str]) -> None:
        """Give a part of what is free to the guests of a round, alike."""
        if guests:
            part = GRANTED * self.free / len(guests)
            for name in guests:
                self.weights[name] += part

    def _seat_guests(self) -> None:
        """Guests make room where all do not fit into the mass."""
        over = math.fsum(self.weights.values()) - self.mass
        guests = [name for name in self.weights if not self.prior(name)]
        held = math.fsum(self.weights[name] for name in guests)
        if over > 0 and held:
            left = max(0.0, 1.0 - over / held)
            self.weights |= {name: left * self.weights[name] for name in guests}

    def _fit(self) -> float:
        """Scale all weights down to the mass; returns the logarithm of how far they exceeded it."""
        grown = math.fsum(self.weights.values()) / self.mass
        if grown <= 1.0:
            return 0.0
        self.weights = {name: weight / grown for name, weight in self.weights.items()}
        self._lift(self.weights)
        return ln(grown)
