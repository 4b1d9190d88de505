"""The pool, its ties and its replay; predictions that are not distributions."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge.consensus import explain, pool, replay
from ai_bridge.errors import InvalidPrediction, InvalidRecord, NoModels, UnknownModel
from ai_bridge.prediction import DECISIONS, Prediction, choose, ordered_probit
from ai_bridge.votes import Vote


def distribution(parts: list[float]) -> dict[str, float]:
    total = math.fsum(parts)
    return {name: part / total for name, part in zip(DECISIONS, parts, strict=True)}


distributions = st.lists(st.floats(0.001, 1), min_size=3, max_size=3).map(distribution)


def vote(name: str, said: dict[str, float], weight: float) -> Vote:
    prediction = Prediction(said)
    return Vote(
        model=name,
        status="ok",
        decision=prediction.decision,
        confidence=prediction.confidence,
        distribution=said,
        weight=weight,
        reasoning="because",
    )


def ballots(said: list[tuple[dict[str, float], float]]) -> list[Vote]:
    return [vote(f"m{i}", each, weight) for i, (each, weight) in enumerate(said)]


ballot_lists = st.lists(st.tuples(distributions, st.floats(0.001, 10)), min_size=1, max_size=8).map(
    ballots
)


def record_of(votes: list[Vote]) -> dict[str, object]:
    agreed = pool(votes)
    stored = {name: getattr(agreed, name) for name in agreed.__struct_fields__}
    return json.loads(json.dumps({**stored, "votes": [each.as_dict() for each in votes]}))


@given(ballot_lists)
def test_the_pool_is_a_distribution_between_the_votes(votes: list[Vote]) -> None:
    agreed = pool(votes)
    assert math.fsum(agreed.distribution.values()) == pytest.approx(1)
    for name, p in agreed.distribution.items():
        said = [each.distribution[name] for each in votes if each.distribution]
        assert min(said) - 1e-12 <= p <= max(said) + 1e-12
    assert agreed.confidence == max(agreed.distribution.values())
    assert 0 <= agreed.agreement <= 1 + 1e-12


@given(ballot_lists, st.randoms(use_true_random=False))
def test_the_order_of_votes_changes_no_bit(votes: list[Vote], random: object) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pool(shuffled) == pool(votes)


@given(ballot_lists)
def test_a_stored_decision_replays_to_the_same_bits(votes: list[Vote]) -> None:
    record = record_of(votes)
    again = replay(record)
    assert again["identical"]
    assert not again["changed"]
    if votes[0].weight:
        assert not replay({**record, "confidence": 0.123456})["identical"]


@given(ballot_lists)
def test_leaving_a_model_out_equals_its_never_having_voted(votes: list[Vote]) -> None:
    without = replay(record_of(votes), without=["m0"]) if len(votes) > 1 else None
    if without is None:
        with pytest.raises(NoModels):
            replay(record_of(votes), without=["m0"])
    else:
        assert without["distribution"] == pool(votes[1:]).distribution


def test_silent_votes_carry_no_weight_and_are_named() -> None:
    votes = [vote("a", {"buy": 0.6, "sell": 0.3, "hold": 0.1}, 1.0)]
    votes.append(Vote(model="b", status="timeout"))
    agreed = pool(votes)
    assert agreed.distribution == votes[0].distribution
    assert agreed.agreement == 1
    text = explain(agreed, votes)
    assert "buy with probability 0.60" in text
    assert "b (timeout)" in text


def test_ties_go_to_hold_then_sell_then_buy() -> None:
    third = 1 / 3
    assert choose({"buy": third, "sell": third, "hold": third}) == "hold"
    assert choose({"buy": 0.4, "sell": 0.4, "hold": 0.2}) == "sell"
    assert choose({"buy": 0.5, "sell": 0.0, "hold": 0.5}) == "hold"


def test_nobody_and_unknown_and_unreadable() -> None:
    with pytest.raises(NoModels):
        pool([Vote(model="a", status="abstained")])
    record = record_of([vote("a", ordered_probit(1.0), 1.0)])
    with pytest.raises(UnknownModel, match="'nobody'"):
        replay(record, without=["nobody"])
    with pytest.raises(InvalidRecord, match="votes"):
        replay({"final_decision": "buy"})


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"buy": 0.5, "sell": 0.5}, "hold"),
        ({"buy": 0.5, "sell": 0.5, "hold": 0.1}, "sum to 1.1"),
        ({"buy": 1.5, "sell": -0.5, "hold": 0.0}, "-0.5"),
        ({"buy": math.nan, "sell": 0.5, "hold": 0.5}, "nan"),
    ],
)
def test_what_is_not_a_distribution_is_refused(said: dict[str, float], names: str) -> None:
    with pytest.raises(InvalidPrediction, match=names):
        Prediction(said)


@given(st.floats(-50, 50))
def test_the_probit_is_symmetric_and_a_distribution(score: float) -> None:
    up, down = Prediction(ordered_probit(score)), Prediction(ordered_probit(-score))
    assert up.distribution["buy"] == down.distribution["sell"]
    assert choose(ordered_probit(10)) == "buy"
