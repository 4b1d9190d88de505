"""Learned weights against an independent computation, and the ledger as a fold."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_bridge.errors import InvalidRecord, InvalidRequest
from ai_bridge.ledger import Ledger
from ai_bridge.prediction import DECISIONS
from ai_bridge.record import outcome_class, outcome_event
from ai_bridge.weights import brier, update

NAMES = ("a", "b", "c", "d")
outcomes = st.sampled_from(DECISIONS)


def as_distribution(parts: list[int]) -> dict[str, float]:
    total = sum(parts)
    return {name: part / total for name, part in zip(DECISIONS, parts, strict=True)}


distributions = st.lists(st.integers(1, 100), min_size=3, max_size=3).map(as_distribution)
rounds = st.lists(
    st.tuples(st.dictionaries(st.sampled_from(NAMES), distributions, min_size=1), outcomes),
    max_size=30,
)


def decision(number: int, votes: dict[str, dict[str, float]]) -> dict[str, object]:
    cast = [{"model": name, "status": "ok", "distribution": said} for name, said in votes.items()]
    return {
        "decision_id": f"d{number}",
        "final_decision": "hold",
        "votes": [*cast, {"model": "late", "status": "timeout"}],
    }


@given(distributions, outcomes)
def test_brier_is_the_squared_distance(said: dict[str, float], outcome: str) -> None:
    exact = sum((Fraction(p) - (name == outcome)) ** 2 for name, p in said.items())
    assert brier(said, outcome) == pytest.approx(float(exact))
    assert 0 <= brier(said, outcome) <= 2


@given(rounds)
def test_weights_follow_from_the_losses_of_all_rounds(played: list) -> None:
    """Reference: keep log weights, and shift the awake so that their summed weight is unchanged."""
    logs = dict.fromkeys(NAMES, 0.0)
    weights: dict[str, float] = {}
    for votes, outcome in played:
        weights = update(weights, votes, outcome)
        awake = {n: logs[n] - sum((p - (o == outcome)) ** 2 for o, p in v.items())
                 for n, v in votes.items()}  # fmt: skip
        shift = math.log(
            sum(math.exp(logs[n]) for n in votes) / sum(math.exp(each) for each in awake.values())
        )
        logs |= {name: each + shift for name, each in awake.items()}
    for name, weight in weights.items():
        assert weight == pytest.approx(math.exp(logs[name]), rel=1e-6, abs=2e-12)


@given(rounds)
def test_always_awake_experts_weigh_exp_of_minus_their_total_loss(played: list) -> None:
    weights: dict[str, float] = {}
    totals = dict.fromkeys(("a", "b"), 0.0)
    for votes, outcome in played:
        both = {"a": next(iter(votes.values())), "b": as_distribution([1, 1, 1])}
        weights = update(weights, both, outcome)
        for name, said in both.items():
            totals[name] += brier(said, outcome)
    if weights:
        ratio = weights["a"] / weights["b"]
        assert ratio == pytest.approx(math.exp(totals["b"] - totals["a"]), rel=1e-6)


def test_sleeping_models_keep_their_weight_and_better_ones_gain() -> None:
    right, wrong = as_distribution([90, 5, 5]), as_distribution([5, 90, 5])
    weights = update({"asleep": 2.0}, {"good": right, "bad": wrong}, "buy")
    assert weights["asleep"] == 2.0
    assert weights["good"] > 1 > weights["bad"]
    assert weights["good"] + weights["bad"] == pytest.approx(2)
    assert update({"asleep": 2.0}, {}, "buy") == {"asleep": 2.0}


@given(rounds)
def test_the_ledger_learns_each_decision_once(played: list) -> None:
    once, repeated = Ledger(), Ledger()
    for number, (votes, outcome) in enumerate(played):
        record = decision(number, votes)
        event = outcome_event(record, {"outcome": outcome})
        once.apply(record, outcome)
        repeated.apply(event, event["outcome"])
        repeated.apply(event, "buy")
        repeated.apply(decision(0, played[0][0]), "sell")
    assert repeated.weights == once.weights
    assert repeated.scores == once.scores
    assert "late" not in once.weights


def test_scores_and_refusals_of_the_ledger() -> None:
    ledger = Ledger()
    ledger.apply(decision(1, {"a": as_distribution([1, 1, 1])}), "buy")
    assert ledger.scores["a"].mean == pytest.approx(2 / 3)
    assert ledger.outcome_of("d1") == "buy"
    assert ledger.weight("a") == ledger.weight("never seen") == pytest.approx(1)
    with pytest.raises(InvalidRecord, match="'up'"):
        ledger.apply(decision(2, {}), "up")
    with pytest.raises(InvalidRecord, match="None"):
        ledger.apply({"votes": []}, "buy")


@pytest.mark.parametrize(
    ("payload", "right"),
    [
        ({"outcome": "sell"}, "sell"),
        ({"return": 0.0031}, "buy"),
        ({"return": -0.0031}, "sell"),
        ({"return": 0.0005}, "hold"),
        ({"return": 0}, "hold"),
    ],
)
def test_outcomes_become_classes(payload: dict[str, object], right: str) -> None:
    assert outcome_class(payload, {}) == right


def test_the_dead_band_of_the_record_decides() -> None:
    assert outcome_class({"return": 0.003}, {"dead_band": 0.01}) == "hold"


@pytest.mark.parametrize(
    "payload",
    [{}, {"outcome": "up"}, {"outcome": ["buy"]}, {"return": math.nan}, {"return": True},
     {"return": "1"}, {"outcome": "buy", "return": 1}, {"why": 1}],
)  # fmt: skip
def test_bad_outcomes_are_refused(payload: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="got"):
        outcome_class(payload, {})
