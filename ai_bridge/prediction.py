"""What a model answers: a probability for every decision, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ai_bridge.errors import InvalidPrediction

DECISIONS = ("buy", "sell", "hold")
# Who wins a tie: doing nothing, then reducing exposure, then the rest by name.
TIE_ORDER = ("hold", "sell", "buy")
_RANK = {name: place for place, name in enumerate(TIE_ORDER)}
TIE_TOLERANCE = 1e-12
SUM_TOLERANCE = 1e-6
_NORMAL = NormalDist()
# Without any signal (score 0) the three classes are equally likely: Phi(cut) = 2/3.
NEUTRAL_CUT = _NORMAL.inv_cdf(2 / 3)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A distribution over the decisions and one sentence a person can read.

    Raises
    ------
    InvalidPrediction
        A probability is missing, unknown, negative or not finite, or they do not sum to 1.
    """

    distribution: dict[str, float]
    reasoning: str = ""
    decisions: tuple[str, ...] = DECISIONS
    digest: str = ""  # SHA-256 of the weights that answered, where they change or can be replaced

    def __post_init__(self) -> None:
        check_distribution(self.distribution, self.decisions)

    @property
    def decision(self) -> str:
        """The most probable decision; ties go by `TIE_ORDER`."""
        return choose(self.distribution)

    @property
    def confidence(self) -> float:
        """Probability of the decision, 0..1."""
        return self.distribution[self.decision]


def check_distribution(
    distribution: Mapping[str, float], decisions: Sequence[str] = DECISIONS
) -> None:
    """Raise InvalidPrediction, naming the values, unless this is a distribution over them."""
    if set(distribution) != set(decisions):
        raise InvalidPrediction(f"decisions {sorted(distribution)} are not {sorted(decisions)}")
    for name, p in distribution.items():
        if not math.isfinite(p) or p < 0:
            raise InvalidPrediction(f"probability of {name} is {p!r}, not a number in 0..1")
    total = math.fsum(distribution.values())
    if abs(total - 1) > SUM_TOLERANCE:
        raise InvalidPrediction(f"probabilities sum to {total!r}, not to 1")


def choose(distribution: Mapping[str, float]) -> str:
    """Return the most probable decision; ties within 1e-12 go hold, sell, buy."""
    top = max(distribution.values())
    tied = [name for name, p in distribution.items() if p >= top - TIE_TOLERANCE]
    if len(tied) == 1:
        return tied[0]
    return min(tied, key=lambda name: (_RANK.get(name, len(_RANK)), name))


def ordered_probit(score: float, cut: float = NEUTRAL_CUT) -> dict[str, float]:
    """Turn an expected standardised return into a distribution over DECISIONS.

    Parameters
    ----------
    score : expected return in units of its own standard deviation; finite
    cut : half width of the dead band in the same units; inside it the right decision is hold

    Notes
    -----
    P(sell) = Phi(-cut - score), P(buy) = Phi(score - cut), P(hold) = the rest.

    References
    ----------
    Hausman, Lo & MacKinlay (1992), An ordered probit analysis of transaction stock prices,
    J. Financial Economics 31.
    """
    buy = _NORMAL.cdf(score - cut)
    sell = _NORMAL.cdf(-cut - score)
    return {"buy": buy, "sell": sell, "hold": max(0.0, 1.0 - buy - sell)}
