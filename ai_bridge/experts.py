"""Who competes in a round: each model as it answered and calibrated, and two virtual experts.

`=configured` is what the user's own weights would have answered, `=uniform` equal weights: so the
consensus is never much worse than either. Calibrated answers are guests (`ai_bridge.weights`) and
cost the guarantee nothing. A model of configured weight 0 votes and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from ai_bridge.backoff import ON_SYMBOL, Mixing
from ai_bridge.votes import Vote
from ai_bridge.weights import Distribution

CONFIGURED, UNIFORM = "=configured", "=uniform"
POT = 0.5  # what guests begin with together
_CALIBRATED = "|calibrated"
Rule = Literal["learned", "static"]


class Pooled(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision was pooled by, so that it replays.

    `rule` learned: by the Aggregating Algorithm, as the games of all symbols (`whole`) and of this
    one (`symbol`) mixed the experts; static: by the mean with the models' `configured` weights.
    """

    rule: Rule
    configured: dict[str, float]
    whole: Mixing | None = None
    symbol: Mixing | None = None


def prior(expert: str) -> float:
    """Weight that an expert begins with; calibrated answers, and symbols' own weights, are guests.

    With `POT` it is 1 for each model and 2 for the virtual ones: N + 2 in all.
    """
    if is_calibrated(expert) or expert.startswith(ON_SYMBOL):
        return 0.0
    return 1.0 - POT if expert == UNIFORM else 1.0


def calibrated(model: str) -> str:
    """Name of a model's calibrated answers as an expert."""
    return model + _CALIBRATED


def is_calibrated(expert: str) -> bool:
    """Whether an expert is a model's calibrated answers."""
    return expert.endswith(_CALIBRATED)


def counting(votes: Sequence[Vote], configured: Mapping[str, float]) -> list[Vote]:
    """The votes that count."""
    return [vote for vote in votes if vote.status == "ok" and configured.get(vote.model, 0.0) > 0]


def experts(votes: Sequence[Vote], configured: Mapping[str, float]) -> dict[str, Distribution]:
    """What each expert says; `votes` are those that count."""
    found = own(votes)
    found[CONFIGURED] = mean(votes, configured)
    found[UNIFORM] = mean(votes, {vote.model: 1.0 for vote in votes})
    return found


def own(votes: Sequence[Vote]) -> dict[str, Distribution]:
    """What the models say, without the virtual experts."""
    found: dict[str, Distribution] = {}
    for vote in votes:
        found[vote.model] = vote.distribution or {}
        if vote.calibrated is not None:
            found[calibrated(vote.model)] = vote.calibrated
    return found


def mean(votes: Sequence[Vote], weights: Mapping[str, float]) -> dict[str, float]:
    """The votes' mean by weight (Stone 1961, The opinion pool); the weights' sum is above 0."""
    first = votes[0].distribution or {}
    if len(votes) == 1:
        return dict(first)
    total = math.fsum(weights[vote.model] for vote in votes)
    return {
        name: math.fsum(weights[vote.model] * (vote.distribution or {})[name] for vote in votes)
        / total
        for name in first
    }


def attributed(
    votes: Sequence[Vote], configured: Mapping[str, float], shares: Mapping[str, float]
) -> dict[str, float]:
    """Each model's part of the pool: its own shares and its part of the virtual experts'."""
    total = math.fsum(configured[vote.model] for vote in votes)
    parts = {
        vote.model: math.fsum(
            (
                shares[vote.model],
                shares[calibrated(vote.model)] if vote.calibrated is not None else 0.0,
                shares[CONFIGURED] * configured[vote.model] / total,
                shares[UNIFORM] / len(votes),
            )
        )
        for vote in votes
    }
    whole = math.fsum(parts.values())
    return {model: part / whole for model, part in parts.items()}
