"""What outcomes teach about models: Aggregating Algorithm weights for the Brier game.

Each outcome multiplies the weight of a model that voted by exp(-ETA * its Brier loss). Models
that did not vote are *sleeping experts*: they are asleep this round, and the voters are rescaled
so that their total stays what it was. A model never seen before weighs 1, the mean of all.

References
----------
Vovk & Zhdanov (2009), Prediction with expert advice for the Brier game, JMLR 10: ETA = 1.
Freund, Schapire, Singer & Warmuth (1997), Using and combining predictors that specialize, STOC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ETA = 1.0  # the largest learning rate for which the Brier game is mixable
NEW_WEIGHT = 1.0
# A weight that underflowed to zero could never come back.
MIN_WEIGHT = 1e-12

Weights = dict[str, float]


def brier(distribution: Mapping[str, float], outcome: str) -> float:
    """Squared distance between a distribution and what happened, 0 (certain, right) to 2."""
    return math.fsum(
        (p - (1.0 if name == outcome else 0.0)) ** 2 for name, p in distribution.items()
    )


def update(
    weights: Mapping[str, float], votes: Mapping[str, Mapping[str, float]], outcome: str
) -> Weights:
    """Return the weights after one outcome.

    Parameters
    ----------
    weights : learned weight of every model seen so far, > 0
    votes : distribution of each model that voted; models not named here are asleep
    outcome : the decision that turned out right
    """
    before = {name: weights.get(name, NEW_WEIGHT) for name in votes}
    after = {
        name: before[name] * math.exp(-ETA * brier(distribution, outcome))
        for name, distribution in votes.items()
    }
    if not after:
        return dict(weights)
    scale = math.fsum(before.values()) / math.fsum(after.values())
    learned = {name: max(MIN_WEIGHT, weight * scale) for name, weight in after.items()}
    return {**weights, **learned}


def effective(configured: Mapping[str, float], learned: Mapping[str, float]) -> Weights:
    """Return each voter's share: configured times learned weight, summing to 1.

    All shares are 0 where every configured weight is 0.
    """
    raw = {name: weight * learned.get(name, NEW_WEIGHT) for name, weight in configured.items()}
    total = math.fsum(raw.values())
    return {name: weight / total if total else 0.0 for name, weight in raw.items()}
