"""From votes to one decision: a weighted linear pool, and its exact replay.

Sums are correctly rounded (`math.fsum`), so the order of the votes never changes a bit of the
result, and a stored record recomputes to the same bytes.

References
----------
Stone (1961), The opinion pool, Ann. Math. Statist. 32(4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ai_bridge.errors import InvalidRecord, NoModels, UnknownModel
from ai_bridge.prediction import DECISIONS, choose
from ai_bridge.votes import Vote

_REPLAYED = ("final_decision", "confidence", "distribution", "agreement")


class Consensus(msgspec.Struct, frozen=True, kw_only=True):
    """What the votes come to.

    `confidence` is the pooled probability of the final decision, `agreement` the share of the
    weight that voted for it, both 0..1.
    """

    final_decision: str
    confidence: float
    distribution: dict[str, float]
    agreement: float


def pool(votes: Sequence[Vote]) -> Consensus:
    """Combine the `ok` votes by their weighted mean; ties go hold, sell, buy.

    Raises
    ------
    NoModels
        No vote is `ok` with a weight above 0.
    """
    voters = [vote for vote in votes if vote.status == "ok" and vote.weight > 0]
    total = math.fsum(vote.weight for vote in voters)
    if not total:
        raise NoModels("no vote carries weight")
    distribution = {
        name: math.fsum(vote.weight * (vote.distribution or {})[name] for vote in voters) / total
        for name in (voters[0].distribution or {})
    }
    final = choose(distribution)
    agreeing = math.fsum(vote.weight for vote in voters if vote.decision == final)
    return Consensus(
        final_decision=final,
        confidence=distribution[final],
        distribution=distribution,
        agreement=agreeing / total,
    )


def explain(consensus: Consensus, votes: Sequence[Vote]) -> str:
    """Say in a few sentences what was decided, by whom, and who kept silent."""
    voters = [vote for vote in votes if vote.status == "ok"]
    for_it = [vote for vote in voters if vote.decision == consensus.final_decision]
    lines = [
        f"{consensus.final_decision} with probability {consensus.confidence:.2f}: {len(for_it)} of "
        f"{len(voters)} voting models, {consensus.agreement:.0%} of the weight, chose it."
    ]
    for vote in sorted(voters, key=lambda vote: (-vote.weight, vote.model)):
        lines.append(
            f"{vote.model} ({vote.weight:.0%}) says {vote.decision} "
            f"at {vote.confidence or 0:.2f}: {vote.reasoning}."
        )
    silent = [f"{vote.model} ({vote.status})" for vote in votes if vote.status != "ok"]
    if silent:
        lines.append(f"Without a vote: {', '.join(silent)}.")
    return " ".join(lines)


def replay(record: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """Recompute a stored decision from its votes and weights, optionally without some models.

    Returns
    -------
    The recomputed `final_decision`, `confidence`, `distribution` and `agreement`, `identical`
    (equal to the record in every bit), `without`, and `changed` (another final decision).

    Raises
    ------
    UnknownModel
        `without` names a model that took no part.
    NoModels
        Nobody is left to vote.
    InvalidRecord
        The record holds no readable votes.
    """
    votes = votes_of(record)
    unknown = sorted(set(without) - {vote.model for vote in votes})
    if unknown:
        raise UnknownModel(f"{', '.join(map(repr, unknown))} took no part in this decision")
    consensus = pool([vote for vote in votes if vote.model not in without])
    again = {name: getattr(consensus, name) for name in _REPLAYED}
    return {
        **again,
        "identical": all(record.get(name) == value for name, value in again.items()),
        "changed": record.get("final_decision") != consensus.final_decision,
        "without": list(without),
    }


def decisions_of(record: Mapping[str, Any]) -> list[str]:
    """Read what a stored decision could choose from; records before that was free have none."""
    decisions = record.get("decisions", list(DECISIONS))
    return [str(name) for name in decisions] if isinstance(decisions, list) else []


def votes_of(record: Mapping[str, Any], field: str = "votes") -> list[Vote]:
    """Read the votes of a stored decision; raises InvalidRecord naming what is wrong.

    `field` may be `late_votes`, which a record need not have.
    """
    try:
        return msgspec.convert(record.get(field, None if field == "votes" else []), list[Vote])
    except msgspec.ValidationError as wrong:
        raise InvalidRecord(f"the decision's votes cannot be read: {wrong}") from wrong
