"""From votes to one decision, and its exact replay.

With learned weights the votes are pooled as the Aggregating Algorithm says (`ai_bridge.weights`),
with static ones, and in records from before there was a choice, by their weighted mean (Stone 1961,
The opinion pool, Ann. Math. Statist. 32(4)). Sums are correctly rounded (`math.fsum`), so the order
of the votes never changes a bit of the result, and a stored record recomputes to the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from ai_bridge.backoff import predict
from ai_bridge.conformal import Cover, prediction_set
from ai_bridge.errors import InvalidRecord, NoModels, UnknownModel
from ai_bridge.experts import Pooled, attributed, counting, experts
from ai_bridge.prediction import DECISIONS, choose
from ai_bridge.votes import Vote

T = TypeVar("T")
_REPLAYED = ("final_decision", "confidence", "distribution", "agreement")


class Consensus(msgspec.Struct, frozen=True, kw_only=True):
    """What the votes come to.

    `confidence` is the pooled probability of the final decision, `agreement` the share of the
    weight that voted for it, both 0..1; `weights` are the models' parts of the pool.
    """

    final_decision: str
    confidence: float
    distribution: dict[str, float]
    agreement: float
    weights: dict[str, float]


def pool(votes: Sequence[Vote], pooled: Pooled | None = None) -> Consensus:
    """Combine the `ok` votes; ties go hold, sell, buy.

    Without `pooled`, and with static weights, by the mean with the weights that the votes hold.

    Raises
    ------
    NoModels
        No vote is `ok` with a weight above 0.
    """
    if pooled is None or pooled.rule == "static":
        return _mean(votes)
    voters = counting(votes, pooled.configured)
    if not voters:
        raise NoModels("no vote carries weight")
    if pooled.whole is None or pooled.symbol is None:
        raise InvalidRecord("the decision's pool does not say how experts were mixed")
    said = experts(voters, pooled.configured)
    distribution, shares = predict(said, pooled.whole, pooled.symbol)
    return _decided(voters, distribution, attributed(voters, pooled.configured, shares))


def _mean(votes: Sequence[Vote]) -> Consensus:
    voters = [vote for vote in votes if vote.status == "ok" and vote.weight > 0]
    total = math.fsum(vote.weight for vote in voters)
    if not total:
        raise NoModels("no vote carries weight")
    distribution = {
        name: math.fsum(vote.weight * (vote.distribution or {})[name] for vote in voters) / total
        for name in (voters[0].distribution or {})
    }
    return _decided(voters, distribution, {vote.model: vote.weight for vote in voters})


def _decided(
    voters: Sequence[Vote], distribution: dict[str, float], weights: dict[str, float]
) -> Consensus:
    final = choose(distribution)
    agreeing = math.fsum(weights[vote.model] for vote in voters if vote.decision == final)
    return Consensus(
        final_decision=final,
        confidence=distribution[final],
        distribution=distribution,
        agreement=agreeing / math.fsum(weights.values()),
        weights=weights,
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
    The recomputed `final_decision`, `confidence`, `distribution` and `agreement`, where a coverage
    was stated also `prediction_set` and `abstained`, `identical`
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
    left = [vote for vote in votes if vote.model not in without]
    try:
        consensus = pool(left, pooled_of(record))
    except KeyError as absent:
        raise InvalidRecord(f"the decision's votes and pool do not fit: no {absent}") from absent
    again: dict[str, Any] = {name: getattr(consensus, name) for name in _REPLAYED}
    cover = cover_of(record)
    if cover is not None:
        again["prediction_set"] = prediction_set(consensus.distribution, cover.threshold)
        again["abstained"] = len(again["prediction_set"]) > 1
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
    return _read(record.get(field, None if field == "votes" else []), list[Vote], field)


def pooled_of(record: Mapping[str, Any]) -> Pooled | None:
    """Read by what a stored decision was pooled; None: by the mean, as all were once."""
    found = record.get("pool")
    return None if found is None else _read(found, Pooled, "pool")


def cover_of(record: Mapping[str, Any]) -> Cover | None:
    """Read by what a stored decision's prediction set was made; None where it has none."""
    found = record.get("coverage")
    return None if found is None else _read(found, Cover, "coverage")


def _read(value: object, shape: type[T], field: str) -> T:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as wrong:
        raise InvalidRecord(f"the decision's {field} cannot be read: {wrong}") from wrong
